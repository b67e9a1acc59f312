#include "python/call_arguments.h"

#include <algorithm>

#include "core/schema/schema_types.h"

namespace deepseek::python {
namespace {

// Why an overload did not match; the last one is shown to the user.
struct Mismatch {
  std::string message;
  bool of_signature = false;  // too many arguments, too few or unknown ones: the user should see which there are
};

// How what was given breaks the rule of sizes and numbers: an entry of a list is told with its place.
std::string given_for_field(ArgType kind, PyObject* o) {
  int64_t i;
  if ((kind == ArgType::kDims || kind == ArgType::kOptDims) && (PyTuple_Check(o) || PyList_Check(o))) {
    for (Py_ssize_t at = 0; at < PySequence_Fast_GET_SIZE(o); ++at) {
      const Object entry = Object::borrow(PySequence_Fast_GET_ITEM(o, at));
      if (PyBool_Check(entry.get()) || !to_int(entry.get(), i))
        return ", but found element of type " + wrong_int(entry.get()) + " at pos " + std::to_string(at);
    }
  }
  return ", not " +
         (kind == ArgType::kInt || kind == ArgType::kOptInt || kind == ArgType::kDims || kind == ArgType::kOptDims
              ? wrong_int(o)
              : type_name(o));
}

bool parse_generator(PyObject* o, Generator*& out) {
  if (o == Py_None) return out = nullptr, true;
  return (out = generator_of(o)) != nullptr;
}

// `numbers`: a Python number will do.
bool parse_tensor(PyObject* o, const SchemaArg& a, bool numbers, Call& call) {
  if (is_tensor(o)) {
    call.add_input(o);
  } else if (o == Py_None && a.optional_tensor) {
    call.inputs.push_back(Tensor());
  } else if (numbers && is_number(o)) {
    call.inputs.push_back(number_tensor(o));
  } else {
    return false;
  }
  return true;
}

// False when `o` is no list; an entry that is no tensor is returned in `wrong`.
bool parse_list(PyObject* o, const SchemaArg& a, Call& call, Object& wrong) {
  if (!PyTuple_Check(o) && !PyList_Check(o)) return false;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i) {
    PyObject* const item = PySequence_Fast_GET_ITEM(o, i);
    if (is_tensor(item)) {
      call.subclasses.see(item);
      call.inputs.push_back(unwrap(item));  // held: a list may be changed while the interpreter lock is released
      continue;
    }
    if (a.optional_tensor && item == Py_None) {
      call.inputs.push_back(Tensor());
      continue;
    }
    Object held = Object::borrow(item);  // to ask what it is may run code, which may change the list
    if (a.numbers == Numbers::kNo || !is_number(item)) {
      wrong = std::move(held);
      return false;
    }
    call.inputs.push_back(number_tensor(item));
  }
  return true;
}

template <class T>
bool put(void* field, const T& v) {
  *static_cast<T*>(field) = v;
  return true;
}

bool parse_str(PyObject* o, Str& out) {
  if (!PyUnicode_Check(o)) return false;
  out = Str(utf8(o));
  return true;
}

bool to_real(PyObject* o, Scalar& s) { return is_number(o) && to_scalar(o, s) && !s.is_complex(); }

// Refuses a number that no dtype holds before any op sees it.
const Scalar& representable(const Scalar& s) {
  s.check_real();
  return s;
}

// Writes one attribute; false when the object has the wrong type.
bool parse_field(ArgType kind, PyObject* o, void* field) {
  const bool none = o == Py_None;
  int64_t i;
  Scalar s;
  Dims d;
  Str text;
  switch (kind) {
    case ArgType::kInt:
      return to_int(o, i) && !PyBool_Check(o) && put<int64_t>(field, i);
    case ArgType::kFloat:
      return to_real(o, s) && put<double>(field, s.to_double());
    case ArgType::kBool:
      if (!PyBool_Check(o) && !PyLong_Check(o)) return false;
      return put<bool>(field, is_true(o));
    case ArgType::kScalar:
      return to_scalar(o, s) && put(field, representable(s));
    case ArgType::kDims:
      if (to_int(o, i) && !PyBool_Check(o)) return put(field, Dims{i});
      return to_dims(o, d) && put(field, d);
    case ArgType::kStr:
      return parse_str(o, text) && put(field, text);
    case ArgType::kOptInt:
      return none ? put(field, Opt<int64_t>()) : to_int(o, i) && !PyBool_Check(o) && put(field, Opt<int64_t>(i));
    case ArgType::kOptFloat:
      return none ? put(field, Opt<double>()) : to_real(o, s) && put(field, Opt<double>(s.to_double()));
    case ArgType::kOptBool:
      return none ? put(field, Opt<bool>()) : PyBool_Check(o) && put(field, Opt<bool>(o == Py_True));
    case ArgType::kOptScalar:
      return none ? put(field, Opt<Scalar>()) : to_scalar(o, s) && put(field, Opt<Scalar>(representable(s)));
    case ArgType::kOptDims:
      if (none) return put(field, Opt<Dims>());
      if (to_int(o, i) && !PyBool_Check(o)) return put(field, Opt<Dims>(Dims{i}));
      return to_dims(o, d) && put(field, Opt<Dims>(d));
    case ArgType::kOptStr:
      return none ? put(field, Opt<Str>()) : parse_str(o, text) && put(field, Opt<Str>(text));
    case ArgType::kOptDType:
      if (none) return put(field, Opt<DType>());
      if (!is_dtype(o) && !PyType_Check(o)) return false;
      return put(field, Opt<DType>(unwrap_dtype(o)));
    case ArgType::kTensor:  // inputs, and what the caller looks at
    case ArgType::kTensorList:
    case ArgType::kGenerator:
    case ArgType::kDevice:
    case ArgType::kDType:
      return false;
  }
  __builtin_unreachable();
}

// Old PyTorch names of the same argument (numpy's axis, sum(x, keepdims), …).
const char* alias_of(const std::string& name) {
  if (name == "dim") return "axis";
  if (name == "keepdim") return "keepdims";
  if (name == "input") return "self";
  if (name == "size") return "shape";
  if (name == "exponent") return "other";
  return nullptr;
}

PyObject* find_keyword(PyObject* kwnames, PyObject* const* values, const char* name, uint64_t& used) {
  if (!name) return nullptr;
  const Py_ssize_t n = PyTuple_GET_SIZE(kwnames);
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), name) != 0) continue;
    used |= uint64_t{1} << i;
    return values[i];
  }
  return nullptr;
}

bool parse(const OpDef& def, bool inplace, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, Call& call,
           Mismatch& why) {
  const Schema& schema = def.schema;
  const auto refuse = [&](auto&&... parts) {
    why = {deepseek::text_of({schema.base, inplace ? "_(): " : "(): ", parts...})};
    return false;
  };
  const auto refuse_count = [&](auto&&... parts) {
    refuse(parts...);
    why.of_signature = true;
    return false;
  };
  call.def = &def;
  call.clear_inputs();
  call.requires_grad = false;
  def.init(call.op);
  PyObject* const* kwvalues = args + nargs;
  const Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  uint64_t used = 0;
  bool left_number = false;  // an operator has a number on its left
  if (nkw > 64) [[unlikely]]
    return refuse("got ", nkw, " keyword arguments");
  Py_ssize_t next = 0;
  const SchemaArg* first_list = nullptr;
  size_t list_length = 0;
  // Lists of one call are as long as each other; one whose entries may be None may be left empty.
  const auto fits = [&](const SchemaArg& a, size_t length) {
    if (!first_list) {
      first_list = &a;
      list_length = length;
    }
    if (length == 0 && a.optional_tensor)
      while (length < list_length) call.inputs.push_back(Tensor()), ++length;
    return length == list_length;
  };
  for (const SchemaArg& a : schema.args) {
    PyObject* value = nullptr;
    if (!a.keyword_only && next < nargs) {
      // x.view(2, 3): loose integers stand for the list.
      if (a.varargs && (nargs - next > 1 || PyIndex_Check(args[next])) && !PyTuple_Check(args[next]) &&
          !PyList_Check(args[next])) {
        Dims d;
        while (next < nargs) {
          int64_t v;
          if (PyBool_Check(args[next]) || !to_int(args[next], v))
            return refuse("argument '", a.name, "' must be tuple of ints, but found element of type ",
                          wrong_int(args[next]), " at pos ", d.size());
          d.push_back(v);
          ++next;
        }
        put(call.op + def.fields[a.slot].offset, d);
        continue;
      }
      value = args[next++];
    } else if (nkw) {
      value = find_keyword(kwnames, kwvalues, a.name.c_str(), used);
      if (!value) value = find_keyword(kwnames, kwvalues, alias_of(a.name), used);
    }
    if (!value) {
      if (a.varargs && next >= nargs && a.kind == ArgType::kDims && !a.has_default && nkw == 0 &&
          schema.args.size() > 1 && schema.args[0].kind != ArgType::kTensor) {
        return refuse("missing required argument '", a.name, "'");
      }
      if (!may_be_left_out(a)) return refuse_count("missing 1 required positional argument: \"", a.name, "\"");
      if (a.kind == ArgType::kTensorList) fits(a, 0);
      if (a.kind == ArgType::kTensor || a.kind == ArgType::kGenerator)
        call.inputs.push_back(a.kind == ArgType::kTensor && a.default_text != "None"
                                  ? Tensor::wrapped(Scalar(std::stod(a.default_text)))
                                  : Tensor());
      continue;
    }
    bool ok = true;
    Object wrong;  // an entry of a list
    switch (a.kind) {
      case ArgType::kTensor:
        ok = parse_tensor(value, a, a.numbers != Numbers::kNo && !left_number, call);
        left_number |= a.numbers == Numbers::kOnTheLeft && is_number(value);
        break;
      case ArgType::kTensorList: {
        const size_t before = call.inputs.size();
        if (!first_list && (PyTuple_Check(value) || PyList_Check(value)))
          call.inputs.reserve(before + schema.num_lists * PySequence_Fast_GET_SIZE(value) + schema.num_inputs);
        ok = parse_list(value, a, call, wrong);
        if (const size_t length = call.inputs.size() - before; ok && !fits(a, length))
          return refuse("argument '", a.name, "' has ", length, " tensors, '", first_list->name, "' ", list_length);
        break;
      }
      case ArgType::kGenerator:
        ok = parse_generator(value, call.generator);
        call.inputs.push_back(Tensor());
        break;
      case ArgType::kDevice:
        check_device(value);
        break;
      case ArgType::kInt:
      case ArgType::kFloat:
      case ArgType::kBool:
      case ArgType::kScalar:
      case ArgType::kDims:
      case ArgType::kStr:
      case ArgType::kDType:
      case ArgType::kOptInt:
      case ArgType::kOptFloat:
      case ArgType::kOptBool:
      case ArgType::kOptScalar:
      case ArgType::kOptDims:
      case ArgType::kOptStr:
      case ArgType::kOptDType:
        if (a.slot < 0)
          call.requires_grad = is_true(value);
        else
          ok = parse_field(a.kind, value, call.op + def.fields[a.slot].offset);
    }
    if (wrong)
      return refuse("argument '", a.name, "' must be a list of Tensors, but one of them is of type ",
                    given_for_tensor(wrong.get()));
    if (!ok) {
      const bool tensors_only = a.kind == ArgType::kTensor && left_number;
      return refuse(
          "argument '", a.name, "' must be ", tensors_only ? "Tensor" : find_schema_type(a.type)->words,
          a.kind <= ArgType::kTensorList ? ", not " + given_for_tensor(value) : given_for_field(a.kind, value));
    }
  }
  if (next < nargs) {
    const auto positional =
        std::count_if(schema.args.begin(), schema.args.end(), [](const SchemaArg& a) { return !a.keyword_only; });
    return refuse_count("takes ", positional, " positional arguments but ", nargs, " were given");
  }
  for (Py_ssize_t i = 0; i < nkw; ++i) {
    if (used >> i & 1) continue;
    PyObject* name = PyTuple_GET_ITEM(kwnames, i);
    const bool has_out = !inplace && !schema.returns_list && !schema.returns.empty();
    if (has_out && PyUnicode_CompareWithASCIIString(name, "out") == 0) {
      call.out = kwvalues[i] == Py_None ? nullptr : kwvalues[i];  // np.sum(tensor) calls tensor.sum(out=None)
      continue;
    }
    // Accepted for scripts that pass them; there is one layout and no pinned memory here.
    if (PyUnicode_CompareWithASCIIString(name, "layout") == 0 ||
        PyUnicode_CompareWithASCIIString(name, "pin_memory") == 0 ||
        PyUnicode_CompareWithASCIIString(name, "memory_format") == 0 ||
        PyUnicode_CompareWithASCIIString(name, "non_blocking") == 0)
      continue;
    return refuse_count("got an unexpected keyword argument '", utf8(name), "'");
  }
  return true;
}

[[noreturn, gnu::cold]] void refuse_call(const std::vector<const OpDef*>& overloads, bool inplace,
                                         PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, Call& call) {
  const std::string name = overloads[0]->schema.base + (inplace ? "_" : "");
  Mismatch why;
  std::string all;
  for (const OpDef* def : overloads) {
    parse(*def, inplace, args, nargs, kwnames, call, why);
    all += "\n  " + signature_text(def->schema, name) + ": " + why.message;
  }
  if (overloads.size() == 1 && why.of_signature)
    fail<TypeError>(why.message, "; the signature is ",
                    signature_text(overloads[0]->schema, inplace ? name : overloads[0]->schema.name));
  if (overloads.size() == 1) fail<TypeError>(why.message);
  fail<TypeError>(name, "() received an invalid combination of arguments. The overloads are:", all);
}

}  // namespace

std::string given_for_tensor(PyObject* o) {
  return type_name(o) + (is_foreign_tensor(o) ? "; deepseek.as_tensor() makes a Tensor of it" : "");
}

void select_overload(const std::vector<const OpDef*>& overloads, bool inplace, PyObject* const* args, Py_ssize_t nargs,
                     PyObject* kwnames, Call& call) {
  Mismatch why;
  for (const OpDef* def : overloads)
    if (parse(*def, inplace, args, nargs, kwnames, call, why)) return;
  refuse_call(overloads, inplace, args, nargs, kwnames, call);
}

}  // namespace deepseek::python
