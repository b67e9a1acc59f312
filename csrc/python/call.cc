// Calling ops from Python: one generic FASTCALL over the op table.
#include <algorithm>
#include <map>

#include "core/autocast_off.h"
#include "core/inplace.h"
#include "core/recorder.h"
#include "core/schema_types.h"
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

void write_out(PyObject* out, const Tensor& result) {
  DS_CHECK_AS(TypeError, is_tensor(out), "argument 'out' must be Tensor, not ", given_for_tensor(out));
  const Tensor target = unwrap(out);
  DS_CHECK(!target.requires_grad() && !result.requires_grad(),
           "functions with out=... arguments don't support automatic differentiation, but one of the arguments "
           "requires grad.");
  DS_CHECK(can_cast(result.dtype(), target.dtype()), "result type ", name_of(result.dtype()),
           " can't be cast to the desired output type ", name_of(target.dtype()));
  if (target.sizes() != result.sizes()) {  // an out tensor takes the result's shape, as in PyTorch
    if (mode().recorder) mode().recorder->refuse("an out= tensor takes another size");
    const Tensor fresh = Tensor::empty(result.sizes(), target.dtype());
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
      write_out(call.out, out[0]);
    } else {
      DS_CHECK_AS(TypeError,
                  PyTuple_Check(call.out) && PyTuple_GET_SIZE(call.out) == static_cast<Py_ssize_t>(out.size()),
                  "out must be a tuple of ", out.size(), " tensors");
      for (size_t i = 0; i < out.size(); ++i) write_out(PyTuple_GET_ITEM(call.out, i), out[i]);
    }
    Py_INCREF(call.out);
    return call.out;
  }
  PyTypeObject* type = call.subclasses.result();
  if (schema.returns_list) return wrap_list(out, true, type);
  if (schema.returns.empty()) Py_RETURN_NONE;
  if (schema.returns.size() == 1) return wrap(std::move(out[0]), type);
  auto result =
      pybind11::reinterpret_steal<pybind11::object>(checked(PyStructSequence_New(result_type_for(*call.def))));
  for (size_t i = 0; i < out.size(); ++i) PyStructSequence_SET_ITEM(result.ptr(), i, wrap(out[i], type));
  return result.release().ptr();
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
  f->vectorcall = &Guarded<op_vectorcall>::call;
  f->overloads = &overload_table().at(name);
  f->inplace = inplace;
  f->name = PyUnicode_FromString((name + (inplace ? "_" : "")).c_str());
  return reinterpret_cast<PyObject*>(f);
}

namespace {

namespace py = pybind11;

PyObject* call_by_name(const std::string& name, const py::args& args, const py::kwargs& kwargs,
                       void (*run)(const Call&, TensorList&)) {
  std::vector<const OpDef*> overloads;
  if (const OpDef* def = find_op(name)) overloads = {def};
  if (overloads.empty()) throw py::key_error("there is no op named '" + name + "'");
  std::vector<PyObject*> values;
  for (py::handle h : args) values.push_back(h.ptr());
  py::tuple names(kwargs.size());
  size_t i = 0;
  for (const auto& [k, v] : kwargs) {
    names[i++] = k;
    values.push_back(v.ptr());
  }
  Call call;
  select_overload(overloads, false, values.data(), static_cast<Py_ssize_t>(args.size()), names.ptr(), call);
  const GeneratorScope scope(call.generator);
  TensorList out;
  run(call, out);
  return finish(call, out);
}

const char* autocast_rule(const OpDef& d) {
  switch (d.info->autocast) {
    case Autocast::kNone:
      return "none";
    case Autocast::kLower:
      return "lower";
    case Autocast::kFloat32:
      return "float32";
    case Autocast::kPromote:
      return "promote";
    case Autocast::kOff:
      return "off";
  }
  return "";
}

}  // namespace

void bind_ops(py::module_& m) {
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
  py::list functions;
  for (const auto& [name, overloads] : overload_table()) {
    const Shown shown = overloads[0]->info->shown;
    m.add_object(name.c_str(), make_op_function(name, false, false));
    if (shown == Shown::kBoth || shown == Shown::kFunction) functions.append(name);
    const auto& args = overloads[0]->schema.args;
    const bool takes_self = !args.empty() && args[0].kind == ArgType::kTensor;
    if ((shown == Shown::kBoth || shown == Shown::kMethod) && takes_self)
      PyObject_SetAttrString(type, name.c_str(),
                             py::reinterpret_steal<py::object>(make_op_function(name, true, false)).ptr());
    bool inplace = false;
    for (const OpDef* d : overloads) inplace |= d->info->inplace;
    if (inplace && takes_self && name[0] != '_') {
      const std::string iname = name + "_";
      PyObject_SetAttrString(type, iname.c_str(),
                             py::reinterpret_steal<py::object>(make_op_function(name, true, true)).ptr());
      if (shown != Shown::kHidden) m.add_object(iname.c_str(), make_op_function(name, false, true));
      if (shown == Shown::kBoth) functions.append(iname);
    }
  }
  m.def("_type_name", [](const py::object& o) { return type_name(o.ptr()); });
  m.def("_given_for_tensor", [](const py::object& o) { return given_for_tensor(o.ptr()); });
  m.attr("_functions") = functions;  // what deepseek/__init__.py shows

  py::class_<OpDef>(m, "OpDef", "An entry of the op table.")
      .def_property_readonly("name", [](const OpDef& d) { return d.schema.name; })
      .def_property_readonly("schema", [](const OpDef& d) { return d.info->schema; })
      .def_property_readonly("doc", [](const OpDef& d) { return d.info->doc; })
      .def_property_readonly("autocast", autocast_rule)
      .def_property_readonly("view", [](const OpDef& d) { return d.view != nullptr; })
      .def_property_readonly("differentiable", [](const OpDef& d) { return d.info->differentiable; })
      .def_property_readonly("refuses_values", [](const OpDef& d) { return d.info->refuses_values; })
      .def_property_readonly("random", [](const OpDef& d) { return d.info->random; })
      .def_property_readonly("inplace", [](const OpDef& d) { return d.info->inplace; })
      .def_property_readonly("writes",
                             [](const OpDef& d) {
                               py::list names;
                               for (const SchemaArg& a : d.schema.args)
                                 if (a.written) names.append(a.name);
                               return names;
                             })
      .def_property_readonly("composite", [](const OpDef& d) { return d.body != nullptr; })
      .def_property_readonly("has_composite", [](const OpDef& d) { return d.composite != nullptr; })
      .def_property_readonly("hidden", [](const OpDef& d) { return d.info->shown == Shown::kHidden; })
      .def_property_readonly("functional", [](const OpDef& d) { return d.info->shown == Shown::kFunctional; })
      .def_property_readonly(
          "num_outputs",
          [](const OpDef& d) { return d.schema.returns_list ? -1 : static_cast<int>(d.schema.returns.size()); })
      .def_property_readonly("arguments", [](const OpDef& d) {
        py::list out;
        for (const SchemaArg& a : d.schema.args)
          out.append(py::make_tuple(a.name, a.type, a.has_default ? py::object(py::str(a.default_text)) : py::none(),
                                    a.keyword_only, a.varargs));
        return out;
      });
  m.def(
      "op_table",
      [] {
        py::dict out;
        for (const OpDef* d : op_table())
          out[py::str(d->schema.name)] = py::cast(d, py::return_value_policy::reference);
        return out;
      },
      "Every op: name -> OpDef.");
  m.def(
      "op_call",
      [](const std::string& name, const py::args& args, const py::kwargs& kwargs) {
        return py::reinterpret_steal<py::object>(call_by_name(
            name, args, kwargs, [](const Call& c, TensorList& out) { dispatch_op(*c.def, c.op, c.inputs, out); }));
      },
      "Calls any op of the table by its full name.");
  m.def(
      "op_composite",
      [](const std::string& name, const py::args& args, const py::kwargs& kwargs) {
        return py::reinterpret_steal<py::object>(call_by_name(name, args, kwargs, [](const Call& c, TensorList& out) {
          DS_CHECK(c.def->composite, c.def->name(), " has no composite twin");
          c.def->composite(c.op, c.inputs, out);
        }));
      },
      "Runs the composite that defines a fused op.");
  m.def(
      "infer",
      [](const std::string& name, const py::args& args, const py::kwargs& kwargs) {
        py::list out;
        static thread_local py::list* target;
        target = &out;
        struct Done {};
        try {
          call_by_name(name, args, kwargs, [](const Call& c, TensorList&) {
            DS_CHECK(c.def->infer, c.def->name(), " is a view or composite: it has no infer");
            Metas metas;
            c.def->infer(c.op, c.inputs, metas);
            for (const Meta& meta : metas)
              target->append(py::make_tuple(py::reinterpret_steal<py::object>(wrap_dtype(meta.dtype)),
                                            py::reinterpret_steal<py::object>(make_size(meta.sizes))));
            throw Done();
          });
        } catch (const Done&) {
        }
        return out;
      },
      "(dtype, shape) of each result, without computing it.");
}

}  // namespace deepseek::python
