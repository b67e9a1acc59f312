// Functions of the module that are no ops but make, convert or describe tensors, and the op table.
#include "core/dispatch/promotion.h"
#include "core/schema/schema_types.h"
#include "python/bind/bind.h"
#include "python/call_arguments.h"
#include "python/convert.h"
#include "python/dlpack.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

Opt<DType> optional_dtype(const Object& o) { return o.is_none() ? Opt<DType>() : Opt<DType>(unwrap_dtype(o.get())); }

// Pinned memory is accepted as every factory does; there is none here.
Tensor tensor(const Object& data, const Object& dtype, const Object& device, bool requires_grad,
              [[maybe_unused]] bool pin_memory) {
  check_device(device.get());
  const Tensor out = tensor_from_data(data.get(), optional_dtype(dtype));
  return requires_grad ? set_requires_grad(out) : out;
}

Object result_type_of(const Object& a, const Object& b) {
  const auto operand = [](PyObject* o) { return is_tensor(o) ? unwrap(o) : number_tensor(o); };
  const Tensor in[] = {operand(a.get()), operand(b.get())};
  return owned(wrap_dtype(result_type(in)));
}

Object as_subclass(const Tensor& t, const py::type& cls) {
  auto* type = reinterpret_cast<PyTypeObject*>(cls.ptr());
  DS_CHECK_AS(TypeError, PyType_IsSubtype(type, tensor_type), "as_subclass(): '", type->tp_name,
              "' is not a subclass of Tensor");
  refuse_capture("a tensor becomes an object of a subclass");
  return owned(wrap_as(type, expand(t, t.sizes())));
}

void bind_conversions(py::module_& m) {
  m.def("tensor", tensor, py::arg("data"), py::kw_only(), py::arg("dtype") = py::none(), py::arg("device") = py::none(),
        py::arg("requires_grad") = false, py::arg("pin_memory") = false,
        "A fresh tensor with the data's values; dtype inferred as PyTorch does. Data may be numbers, nested sequences, "
        "arrays, and other libraries' tensors (anything with __dlpack__).");
  m.def("_is_number", [](const Object& o) { return is_number(o.get()); });
  m.def(
      "as_tensor",
      [](const Object& data, const Object& dtype, const Object& device) {
        check_device(device.get());
        return as_tensor(data.get(), optional_dtype(dtype));
      },
      py::arg("data"), py::arg("dtype") = py::none(), py::arg("device") = py::none(),
      "A tensor on the memory of a tensor, an array, or another library's tensor, where the dtype allows; a copy "
      "else.");
  m.def(
      "from_numpy", [](const Object& array) { return from_numpy(array.get()); }, py::arg("ndarray"),
      "A tensor on the array's memory.");
  m.def(
      "_numpy", [](const Tensor& t, bool force) { return owned(to_numpy(t, force)); }, py::arg("self"),
      py::arg("force") = false, "A NumPy array on the tensor's memory.");
  m.def(
      "_tolist",
      [](const Tensor& t) {
        if (t.numel() > 1024) refuse_capture("tolist() of many numbers");
        return owned(to_list(t));
      },
      "Nested lists of numbers.");
  m.def("_to_dlpack", [](const Tensor& t, bool versioned, bool copied) {
    refuse_capture("a tensor is exported");
    return owned(to_dlpack(t, versioned, copied));
  });
  m.def("_from_dlpack_capsule", [](const Object& capsule) { return from_dlpack_capsule(capsule.get()); });
  m.def("_from_dlpack_producer", [](const Object& producer) { return from_dlpack_producer(producer.get()); });
}

void bind_types(py::module_& m) {
  m.def(
      "promote_types",
      [](const Object& a, const Object& b) {
        return owned(wrap_dtype(promote_types(unwrap_dtype(a.get()), unwrap_dtype(b.get()))));
      },
      "The dtype two dtypes combine to.");
  m.def("can_cast",
        [](const Object& a, const Object& b) { return can_cast(unwrap_dtype(a.get()), unwrap_dtype(b.get())); });
  m.def("result_type", result_type_of, "The dtype an op on two operands gives.");
  m.def("_type_name", [](const Object& o) { return type_name(o.get()); });
  m.def("_given_for_tensor", [](const Object& o) { return given_for_tensor(o.get()); });
  struct Disable {};
  py::class_<Disable>(m, "DisableTorchFunctionSubclass",
                      "A context in which ops take objects of subclasses for plain tensors.")
      .def(py::init<>())
      .def("__enter__", [](Disable&) { disable_subclasses(); })
      .def("__exit__", [](Disable&, const py::args&) { enable_subclasses(); });
  m.def("_as_subclass", as_subclass, "An object of the subclass on t's memory and in t's graph.");
  m.def(
      "_result_class",
      [](const Object& t) {
        DS_CHECK_AS(TypeError, is_tensor(t.get()), "expected a Tensor, got ", type_name(t.get()));
        return Object::borrow(reinterpret_cast<PyObject*>(result_class(t.get())));
      },
      "The class of what an op on t returns.");
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

void bind_op_table(py::module_& m) {
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
}

}  // namespace

void bind_functions(PyObject* module) {
  auto m = py::reinterpret_borrow<py::module_>(module);
  bind_conversions(m);
  bind_array_source(module);
  bind_types(m);
  bind_op_table(m);
}

}  // namespace deepseek::python
