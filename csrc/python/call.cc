// Calling ops from Python: one generic FASTCALL over the op table.
#include <algorithm>
#include <map>

#include "core/dispatch/autocast.h"
#include "core/dispatch/autocast_off.h"
#include "core/dispatch/inplace.h"
#include "core/dispatch/recorder.h"
#include "core/schema/schema_types.h"
#include "python/call_arguments.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

// A namedtuple-like type for each tuple of result names, as torch.return_types.
PyTypeObject* result_type_for(const OpDef& def) {
  static std::map<const OpDef*, PyTypeObject*> types;
  PyTypeObject*& type = types[&def];
  if (type) return type;
  std::vector<PyStructSequence_Field> fields;
  for (const std::string& name : def.schema.returns) fields.push_back({name.c_str(), ""});
  fields.push_back({nullptr, nullptr});
  static std::map<const OpDef*, std::string> names;
  std::string& name = names[&def];
  name = "deepseek.return_types." + def.schema.base;
  PyStructSequence_Desc desc{name.c_str(), "", fields.data(), static_cast<int>(def.schema.returns.size())};
  return type = PyStructSequence_NewType(&desc);
}

// Refuses before anything is written.
void check_out(PyObject* out, const Tensor& result) {
  DS_CHECK_AS(TypeError, is_tensor(out), "argument 'out' must be Tensor, not ", given_for_tensor(out));
  const Tensor target = unwrap(out);
  DS_CHECK(!target.cell()->inference || mode().inference,
           "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a "
           "normal tensor before doing inplace update. (out=)");
  DS_CHECK(!target.requires_grad() && !result.requires_grad(),
           "functions with out=... arguments don't support automatic differentiation, but one of the arguments "
           "requires grad.");
  DS_CHECK(can_cast(result.dtype(), target.dtype()), "result type ", name_of(result.dtype()),
           " can't be cast to the desired output type ", name_of(target.dtype()));
}

void write_out(PyObject* out, const Tensor& result) {
  const Tensor target = unwrap(out);
  if (target.sizes() != result.sizes()) {  // an out tensor takes the result's shape, as in PyTorch
    if (mode().recorder) mode().recorder->refuse("an out= tensor takes another size");
    const Tensor fresh = Tensor::empty(result.sizes(), target.dtype());
    drop_kept_casts(target);
    Cell& c = *target.cell();
    c.storage = fresh.storage();
    c.offset = 0;
    c.sizes = fresh.sizes();
    c.strides = fresh.strides();
  }
  copy_(target, result);
}

PyObject* finish(const Call& call, TensorList& out) {
  const Schema& schema = call.def->schema;
  if (call.requires_grad)
    for (const Tensor& t : out) set_requires_grad(t);
  if (call.out) {
    if (schema.returns.size() == 1) {
      check_out(call.out, out[0]);
      write_out(call.out, out[0]);
    } else {
      DS_CHECK_AS(TypeError,
                  PyTuple_Check(call.out) && PyTuple_GET_SIZE(call.out) == static_cast<Py_ssize_t>(out.size()),
                  "out must be a tuple of ", out.size(), " tensors");
      for (size_t i = 0; i < out.size(); ++i) check_out(PyTuple_GET_ITEM(call.out, i), out[i]);
      for (size_t i = 0; i < out.size(); ++i) write_out(PyTuple_GET_ITEM(call.out, i), out[i]);
    }
    Py_INCREF(call.out);
    return call.out;
  }
  PyTypeObject* type = call.subclasses.result();
  if (schema.returns_list) return wrap_list(out, true, type);
  if (schema.returns.empty()) Py_RETURN_NONE;
  if (schema.returns.size() == 1) return wrap(std::move(out[0]), type);
  Object result = owned(PyStructSequence_New(result_type_for(*call.def)));
  for (size_t i = 0; i < out.size(); ++i) PyStructSequence_SET_ITEM(result.get(), i, wrap(out[i], type));
  return result.release();
}

class GeneratorScope {
 public:
  explicit GeneratorScope(Generator* g) : before_(mode().generator) {
    if (g) mode().generator = g;
  }
  ~GeneratorScope() { mode().generator = before_; }

 private:
  Generator* before_;
};

// --- the callable objects

struct OpFunction {
  PyObject_HEAD vectorcallfunc vectorcall;
  const std::vector<const OpDef*>* overloads;
  bool inplace;
  PyObject* name;
};

PyObject* call_op(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  const auto* f = reinterpret_cast<OpFunction*>(self);
  Call call;
  select_overload(*f->overloads, f->inplace, args, nargs, kwnames, call);
  if (call.subclasses.hooked()) [[unlikely]]
    return call_hooks(self, args, nargs, kwnames);
  const GeneratorScope scope(call.generator);
  if (f->inplace) {
    DS_CHECK_AS(TypeError, nargs > 0 && is_tensor(args[0]), call.def->schema.base,
                "_(): the first argument must be a Tensor");
    dispatch_inplace(*call.def, call.op, call.inputs);
    Py_INCREF(args[0]);
    return args[0];
  }
  TensorList out;
  if (call.out) {
    const AutocastOff off;
    dispatch_op(*call.def, call.op, call.inputs, out);
  } else {
    dispatch_op(*call.def, call.op, call.inputs, out);
  }
  return finish(call, out);
}

PyObject* op_vectorcall(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return call_op(self, args, PyVectorcall_NARGS(nargsf), kwnames);
}
void op_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(reinterpret_cast<OpFunction*>(self)->name);
  type->tp_free(self);
  Py_DECREF(type);
}
PyObject* op_name(PyObject* self) {
  PyObject* name = reinterpret_cast<OpFunction*>(self)->name;
  Py_INCREF(name);
  return name;
}
std::string doc_text(const OpFunction* f) {
  std::string text;
  for (const OpDef* def : *f->overloads)
    text += std::string(text.empty() ? "" : "\n\n") + signature_text(def->schema, def->schema.base) + "\n\n" +
            def->info->doc;
  return text;
}
PyObject* op_doc(PyObject* self) { return PyUnicode_FromString(doc_text(reinterpret_cast<OpFunction*>(self)).c_str()); }
PyObject* op_module(PyObject*) { return PyUnicode_FromString("deepseek"); }
PyObject* op_text_signature(PyObject* self) {
  const auto* f = reinterpret_cast<OpFunction*>(self);
  std::string text = "(";
  bool star = false;
  for (const SchemaArg& a : (*f->overloads)[0]->schema.args) {
    if (text.size() > 1) text += ", ";
    if (a.keyword_only && !star) {
      text += "*, ";
      star = true;
    }
    text += a.name;
    if (a.has_default) text += "=" + a.default_text;
  }
  return PyUnicode_FromString((text + ")").c_str());
}
PyObject* op_repr(PyObject* self) { return PyUnicode_FromFormat("<op %U>", reinterpret_cast<OpFunction*>(self)->name); }
PyObject* op_reduce(PyObject* self) {
  PyObject* name = reinterpret_cast<OpFunction*>(self)->name;
  Py_INCREF(name);
  return name;
}
PyObject* method_descr_get(PyObject* self, PyObject* instance, PyObject*) {
  if (!instance || instance == Py_None) {
    Py_INCREF(self);
    return self;
  }
  return PyMethod_New(self, instance);
}

Attribute op_attributes[] = {
    attribute<op_name>("__name__", nullptr),
    attribute<op_name>("__qualname__", nullptr),
    attribute<op_doc>("__doc__", nullptr),
    attribute<op_module>("__module__", nullptr),
    attribute<op_text_signature>("__text_signature__", nullptr),
    {},
};
Method op_methods[] = {method<op_reduce>("__reduce__", nullptr), {}};
PyMemberDef op_members[] = {
    offset_member("__vectorcalloffset__", offsetof(OpFunction, vectorcall)),
    {},
};
PyTypeObject* function_type = nullptr;
PyTypeObject* method_type = nullptr;

// Public name -> its overloads.
const std::map<std::string, std::vector<const OpDef*>>& overload_table() {
  static const auto* table = [] {
    auto* t = new std::map<std::string, std::vector<const OpDef*>>;
    for (const OpDef* def : op_table()) (*t)[def->schema.base].push_back(def);
    // "max(input)" is tried before "max.dim(input, dim)".
    for (auto& [name, list] : *t)
      std::stable_sort(list.begin(), list.end(),
                       [](const OpDef* a, const OpDef* b) { return a->schema.name < b->schema.name; });
    return t;
  }();
  return *table;
}

}  // namespace

PyObject* make_op_function(const std::string& name, bool method, bool inplace) {
  PyTypeObject* type = method ? method_type : function_type;
  auto* f = PyObject_New(OpFunction, type);
  if (!f) throw PythonError();
  f->vectorcall = &Guarded<op_vectorcall>::call;
  f->overloads = &overload_table().at(name);
  f->inplace = inplace;
  f->name = PyUnicode_FromString((name + (inplace ? "_" : "")).c_str());
  return reinterpret_cast<PyObject*>(f);
}

namespace {

// --- functions of the module that take an op's full name and its arguments

template <class Run>
PyObject* by_name(const char* function, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, Run run) {
  DS_CHECK_AS(TypeError, nargs > 0 && PyUnicode_Check(args[0]), function,
              "(): the first argument must be an op's name");
  const OpDef* def = find_op(std::string(utf8(args[0])));
  if (!def) {
    PyErr_Format(PyExc_KeyError, "there is no op named '%U'", args[0]);
    throw PythonError();
  }
  Call call;
  select_overload({def}, false, args + 1, nargs - 1, kwnames, call);
  const GeneratorScope scope(call.generator);
  return run(call);
}

PyObject* op_call(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return by_name("op_call", args, nargs, kwnames, [](const Call& c) {
    TensorList out;
    dispatch_op(*c.def, c.op, c.inputs, out);
    return finish(c, out);
  });
}

PyObject* op_composite(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return by_name("op_composite", args, nargs, kwnames, [](const Call& c) {
    DS_CHECK(c.def->composite, c.def->name(), " has no composite twin");
    TensorList out;
    c.def->composite(c.op, c.inputs, out);
    return finish(c, out);
  });
}

PyObject* infer(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return by_name("infer", args, nargs, kwnames, [](const Call& c) {
    DS_CHECK(c.def->infer, c.def->name(), " is a view or composite: it has no infer");
    Metas metas;
    c.def->infer(c.op, c.inputs, metas);
    Object out = owned(PyList_New(0));
    for (const Meta& meta : metas) {
      const Object dtype = owned(wrap_dtype(meta.dtype)), sizes = owned(make_size(meta.sizes));
      checked(PyList_Append(out.get(), tuple_of(dtype.get(), sizes.get()).get()));
    }
    return out.release();
  });
}

Method call_functions[] = {
    method<op_call>("op_call", "Calls any op of the table by its full name."),
    method<op_composite>("op_composite", "Runs the composite that defines a fused op."),
    method<infer>("infer", "(dtype, shape) of each result, without computing it."),
};

}  // namespace

void bind_ops(PyObject* m) {
  constexpr unsigned flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL;
  std::vector<Slot> slots = {slot<Py_tp_dealloc, op_dealloc>(),
                             slot<Py_tp_call, PyVectorcall_Call>(),
                             slot<Py_tp_repr, op_repr>(),
                             slot(op_attributes),
                             slot(op_methods),
                             slot(op_members)};
  function_type = new_type("deepseek.op", sizeof(OpFunction), flags, slots);
  slots.push_back(slot<Py_tp_descr_get, method_descr_get>());
  method_type = new_type("deepseek.op_method", sizeof(OpFunction), flags | Py_TPFLAGS_METHOD_DESCRIPTOR, slots);
  auto* type = reinterpret_cast<PyObject*>(tensor_type);
  const auto made = [](const std::string& name, bool method, bool inplace) {
    return owned(make_op_function(name, method, inplace));
  };
  const Object shown_functions = owned(PyList_New(0));
  const auto show = [&](const std::string& name) {
    checked(PyList_Append(shown_functions.get(), to_python(name).get()));
  };
  for (const auto& [name, overloads] : overload_table()) {
    const Shown shown = overloads[0]->info->shown;
    add_to_module(m, name.c_str(), made(name, false, false));
    if (shown == Shown::kBoth || shown == Shown::kFunction) show(name);
    const auto& args = overloads[0]->schema.args;
    const bool takes_self = !args.empty() && args[0].kind == ArgType::kTensor;
    if ((shown == Shown::kBoth || shown == Shown::kMethod) && takes_self)
      checked(PyObject_SetAttrString(type, name.c_str(), made(name, true, false).get()));
    bool inplace = false;
    for (const OpDef* d : overloads) inplace |= d->info->inplace;
    if (inplace && takes_self && name[0] != '_') {
      const std::string iname = name + "_";
      checked(PyObject_SetAttrString(type, iname.c_str(), made(name, true, true).get()));
      if (shown != Shown::kHidden) add_to_module(m, iname.c_str(), made(name, false, true));
      if (shown == Shown::kBoth) show(iname);
    }
  }
  add_to_module(m, "_functions", shown_functions);  // what deepseek/__init__.py shows
  add_functions(m, call_functions);
}

}  // namespace deepseek::python
