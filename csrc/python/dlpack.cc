#include "python/dlpack.h"

#include "base/reach.h"
#include "kernels/index/masked.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

// The ABI of DLPack 1.x.
struct DLDevice {
  int32_t device_type, device_id;
};
struct DLDataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLManagedTensor {
  static constexpr const char *kName = "dltensor", *kUsedName = "used_dltensor";  // a capsule's, before and after use
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  static constexpr const char *kName = "dltensor_versioned", *kUsedName = "used_dltensor_versioned";
  struct {
    uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor dl_tensor;
};
constexpr int32_t kCpu = 1;
constexpr uint64_t kReadOnly = 1, kCopied = 2;  // flags
constexpr uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6, kFloat8E4M3 = 10, kFloat8E5M2 = 12;

DLDataType dl_type(DType t) {
  const auto bits = static_cast<uint8_t>(8 * size_of(t));
  switch (t) {
    case DType::kBool:
      return {kBool, 8, 1};
    case DType::kUInt8:
      return {kUInt, 8, 1};
    case DType::kBFloat16:
      return {kBfloat, 16, 1};
    case DType::kFloat8E4M3:
      return {kFloat8E4M3, 8, 1};
    case DType::kFloat8E5M2:
      return {kFloat8E5M2, 8, 1};
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
      return {kInt, bits, 1};
    case DType::kFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return {kFloat, bits, 1};
  }
  __builtin_unreachable();
}

DType from_dl_type(DLDataType d) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const DLDataType ours = dl_type(static_cast<DType>(i));
    if (ours.code == d.code && ours.bits == d.bits && d.lanes == 1) return static_cast<DType>(i);
  }
  constexpr const char* kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string name = d.code < std::size(kNames) ? kNames[d.code] + std::to_string(d.bits) : "this type";
  fail<BufferError>("from_dlpack: there is no dtype for ", name, " (DLPack type code ", int(d.code), " with ",
                    int(d.bits), " bits and ", d.lanes, " lanes)");
}

// Keeps the tensor, and the shape and stride arrays the struct points to.
template <class Managed>
struct Export {
  Managed managed;
  Tensor tensor;
};

template <class Managed>
Managed* make_export(const Tensor& t) {
  auto* e = new Export<Managed>{{}, t};
  Cell& c = *e->tensor.cell();
  DLTensor& d = e->managed.dl_tensor;
  d = {t.data_ptr(),
       {kCpu, 0},
       t.dim(),
       dl_type(t.dtype()),
       const_cast<int64_t*>(c.sizes.data()),
       const_cast<int64_t*>(c.strides.data()),
       0};
  e->managed.manager_ctx = e;
  e->managed.deleter = [](Managed* m) { delete static_cast<Export<Managed>*>(m->manager_ctx); };
  return &e->managed;
}

template <class Managed>
void destroy_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Managed::kName)) return;  // consumed: its new owner calls the deleter
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::kName));
  if (m->deleter) m->deleter(m);
}

template <class Managed>
Tensor adopt(PyObject* capsule, bool read_only) {
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::kName));
  const DLTensor& d = m->dl_tensor;
  DS_CHECK_AS(BufferError, d.device.device_type == kCpu, "from_dlpack: the data is on device type ",
              d.device.device_type, "; deepseek shares CPU memory only");
  DS_CHECK_AS(BufferError, d.ndim >= 0 && d.ndim <= kMaxDims, "from_dlpack: ", d.ndim, " dimensions; at most ",
              kMaxDims, " are supported");
  const DType dtype = from_dl_type(d.dtype);
  Dims sizes, strides;
  for (int i = 0; i < d.ndim; ++i) sizes.push_back(d.shape[i]);
  if (d.strides)
    for (int i = 0; i < d.ndim; ++i) strides.push_back(d.strides[i]);
  else
    strides = contiguous_strides(sizes);
  numel_of(sizes);
  const Reach reach(sizes, strides);
  char* start = static_cast<char*>(d.data) + d.byte_offset;
  DS_CHECK_AS(BufferError, reinterpret_cast<uintptr_t>(start) % static_cast<uintptr_t>(size_of(dtype)) == 0,
              "from_dlpack: the data is not aligned to its element size");
  checked(PyCapsule_SetName(capsule, Managed::kUsedName));
  auto release = [](void* p) {
    auto* managed = static_cast<Managed*>(p);
    if (!managed->deleter || !Py_IsInitialized()) return;
    const InterpreterLock lock;  // the producer's deleter may be Python's
    managed->deleter(managed);
  };
  const int64_t size = size_of(dtype);
  Ref<Storage> storage =
      Storage::external(start + reach.first * size, static_cast<size_t>((reach.end - reach.first) * size), release, m);
  if (read_only) storage->set_read_only();
  storage->expose();
  Tensor t = Tensor::from_storage(std::move(storage), sizes, strides, -reach.first, dtype);
  if (dtype == DType::kBool && t.numel() > 0) kernels::check_bools("from_dlpack", t.view());
  return t;
}

}  // namespace

PyObject* to_dlpack(const Tensor& t, bool versioned, bool copied) {
  DS_CHECK_AS(BufferError, !t.requires_grad(), "Can't export tensors that require gradient, use tensor.detach()");
  DS_CHECK_AS(BufferError, versioned || !t.storage()->read_only(),
              "Can't export read-only memory to a consumer that does not support DLPack 1.0");
  const Tensor shared = t.alias();
  t.storage()->expose();
  if (!versioned)
    return new_capsule<destroy_unused<DLManagedTensor>>(make_export<DLManagedTensor>(shared), DLManagedTensor::kName);
  using Versioned = DLManagedTensorVersioned;
  auto* m = make_export<Versioned>(shared);
  m->version = {1, 0};
  m->flags = (t.storage()->read_only() ? kReadOnly : 0) | (copied ? kCopied : 0);
  return new_capsule<destroy_unused<Versioned>>(m, Versioned::kName);
}

Tensor from_dlpack_capsule(PyObject* capsule) {
  using Versioned = DLManagedTensorVersioned;
  if (PyCapsule_IsValid(capsule, DLManagedTensor::kName)) return adopt<DLManagedTensor>(capsule, false);
  if (PyCapsule_IsValid(capsule, Versioned::kName)) {
    auto* m = static_cast<Versioned*>(PyCapsule_GetPointer(capsule, Versioned::kName));
    DS_CHECK_AS(BufferError, m->version.major == 1, "from_dlpack: DLPack version ", m->version.major,
                " is not supported (1 is)");
    return adopt<Versioned>(capsule, m->flags & kReadOnly);
  }
  fail<BufferError>(
      "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so you might "
      "have already constructed a tensor from it once.");
}

Tensor from_dlpack_producer(PyObject* given) {
  Object producer = Object::borrow(given);
  // PyTorch exports the memory of a tensor whose sign or conjugate is still to be taken, without a word of it.
  for (const char* resolve : {"resolve_conj", "resolve_neg"})
    if (has_attribute(producer.get(), resolve)) producer = call_method(producer.get(), resolve);
  if (has_attribute(producer.get(), "__dlpack_device__")) {
    const Object device = call_method(producer.get(), "__dlpack_device__");
    const int64_t kind = int_of(owned(PySequence_GetItem(device.get(), 0)).get());
    const int64_t index = int_of(owned(PySequence_GetItem(device.get(), 1)).get());
    DS_CHECK_AS(BufferError, kind == kCpu, "from_dlpack(): the data is on DLPack device (", kind, ", ", index,
                "); deepseek shares CPU memory only, copy it there first, as with .cpu()");
  }
  const Object exporter = get_attribute(producer.get(), "__dlpack__");
  const Object version = tuple_of(to_python(1).get(), to_python(0).get());
  const Object names = tuple_of(to_python("max_version").get());
  PyObject* const arguments[] = {version.get()};
  Object capsule = Object::steal(PyObject_Vectorcall(exporter.get(), arguments, 0, names.get()));
  if (!capsule) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError();
    PyErr_Clear();
    capsule = call(exporter.get());  // an exporter of the protocol before 1.0
  }
  return from_dlpack_capsule(capsule.get());
}

}  // namespace deepseek::python
