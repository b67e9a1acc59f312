// _C._io: what deepseek.io.safetensors and deepseek.save/load stand on.
#include <pybind11/stl.h>

#include <cstring>

#include "base/reach.h"
#include "io/safetensors.h"
#include "python/bind/bind.h"

PYBIND11_DECLARE_HOLDER_TYPE(T, deepseek::Ref<T>, true);

namespace py = pybind11;

namespace deepseek::python {
namespace {

using io::IoError;
using io::SafetensorsFile;
using io::SafetensorsWriter;

// Runs f without the interpreter lock; IoError becomes the OSError subclass of its errno.
template <class F>
auto blocking(F&& f) {
  try {
    py::gil_scoped_release unlocked;
    return f();
  } catch (const IoError& e) {
    const py::object filename = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeFSDefaultAndSize(e.path().data(), static_cast<Py_ssize_t>(e.path().size())));
    if (!filename) throw py::error_already_set();
    PyErr_SetObject(PyExc_OSError, py::make_tuple(e.code(), e.reason(), filename).ptr());
    throw py::error_already_set();
  }
}

Ref<SafetensorsFile> from_bytes(const py::object& data, const std::string& name) {
  Py_buffer buffer;
  if (PyObject_GetBuffer(data.ptr(), &buffer, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  struct Release {
    Py_buffer* buffer;
    ~Release() { PyBuffer_Release(buffer); }
  } release{&buffer};
  return blocking([&] {
    return SafetensorsFile::from_bytes({static_cast<const char*>(buffer.buf), static_cast<size_t>(buffer.len)}, name);
  });
}

const io::TensorEntry& entry_of(const SafetensorsFile& file, const std::string& name) {
  const io::TensorEntry* entry = file.find(name);
  if (!entry) throw py::key_error(file.name() + ": no tensor '" + name + "'");
  return *entry;
}

py::tuple info(const SafetensorsFile& file, const std::string& name) {
  const io::TensorEntry& entry = entry_of(file, name);
  DS_CHECK_AS(LoadError, entry.ndim <= kMaxDims, file.name(), ": tensor '", name, "': ", entry.ndim,
              " dimensions, at most ", kMaxDims, " are supported");
  py::list shape;
  for (size_t i = 0; i < entry.ndim; ++i) shape.append(entry.shape[i]);
  return py::make_tuple(io::name_of(entry.dtype), shape);
}

std::vector<std::string> offset_keys(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const io::TensorEntry& entry : file.entries()) names.push_back(entry.name);
  return names;
}

void save_file(io::NamedTensors tensors, const std::string& path, const std::optional<io::Metadata>& metadata) {
  const SafetensorsWriter writer(std::move(tensors), metadata);
  blocking([&] { writer.save(path); });
}

py::bytes save(io::NamedTensors tensors, const std::optional<io::Metadata>& metadata) {
  const SafetensorsWriter writer(std::move(tensors), metadata);
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(writer.size()));
  if (!bytes) throw py::error_already_set();
  char* out = PyBytes_AS_STRING(bytes);
  blocking([&] {
    writer.emit([&](const void* data, size_t n) {
      std::memcpy(out, data, n);
      out += n;
    });
  });
  return py::reinterpret_steal<py::bytes>(bytes);
}

// A tensor of its own (no view relation, no history) on the memory of `tensor`, `offset` elements from its first. Every
// element must lie inside the storage; the numbers may come from a file.
Tensor strided_view(const Tensor& tensor, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                    int64_t offset) {
  DS_CHECK_AS(ValueError, tensor.has_data() && sizes.size() == strides.size(), "a view needs one stride for each size");
  const Dims shape{std::span(sizes)}, steps{std::span(strides)};
  numel_of(shape);
  int64_t start;
  DS_CHECK_AS(ValueError, !__builtin_add_overflow(tensor.offset(), offset, &start), "the offset ", offset,
              " is too large");
  const Reach reach(shape, steps, start);
  const auto stored = static_cast<int64_t>(tensor.storage()->bytes()) / size_of(tensor.dtype());
  DS_CHECK_AS(ValueError, start >= 0 && start <= stored && reach.within(stored), "a view of size ", shape, ", strides ",
              steps, " and offset ", offset, " leaves its storage of ", stored, " elements");
  return Tensor::from_storage(tensor.storage(), shape, steps, start, tensor.dtype());
}

}  // namespace

void bind_io(PyObject* module) {
  auto parent = py::reinterpret_borrow<py::module_>(module);
  py::module_ m = parent.def_submodule("_io", "Files. Used by deepseek.io and deepseek.save/load.");
  py::class_<SafetensorsFile, Ref<SafetensorsFile>>(m, "SafetensorsFile", "A parsed safetensors file.")
      .def_static(
          "open", [](const std::string& path) { return blocking([&] { return SafetensorsFile::open(path); }); },
          py::arg("path"))
      .def_static("from_bytes", &from_bytes, py::arg("data"), py::arg("name"))
      .def_property_readonly("name", &SafetensorsFile::name)
      .def("offset_keys", &offset_keys)
      .def("metadata", &SafetensorsFile::metadata)
      .def("info", &info, py::arg("name"))
      .def(
          "tensor", [](const SafetensorsFile& f, const std::string& name) { return f.tensor(entry_of(f, name)); },
          py::arg("name"));
  m.def("save_file", &save_file, py::arg("tensors"), py::arg("path"), py::arg("metadata"));
  m.def("save", &save, py::arg("tensors"), py::arg("metadata"));
  m.def("strided_view", &strided_view, py::arg("tensor"), py::arg("sizes"), py::arg("strides"), py::arg("offset"));
}

}  // namespace deepseek::python
