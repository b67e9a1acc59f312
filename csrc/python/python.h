// The binding's shared ground: the Tensor object, conversions both ways, and exception translation.
#pragma once

#include "core/dispatch/recorder.h"
#include "ops/ops.h"
#include "python/object.h"

namespace deepseek::python {

struct TensorObject {
  PyObject_HEAD Cell* cell;  // counted, unless the cell owns this object
  PyObject* dict;
  PyObject* weakrefs;
};

extern PyTypeObject* tensor_type;  // deepseek.Tensor's C base

inline bool is_tensor(PyObject* o) { return PyObject_TypeCheck(o, tensor_type); }
inline bool is_exact_tensor(PyObject* o) { return Py_TYPE(o) == tensor_type; }
inline Tensor unwrap(PyObject* o) { return Tensor(Ref<Cell>(reinterpret_cast<TensorObject*>(o)->cell)); }
inline const Cell& cell_of(PyObject* o) { return *reinterpret_cast<TensorObject*>(o)->cell; }

// What `o` holds, for as long as its caller holds `o`.
class Borrowed {
 public:
  explicit Borrowed(PyObject* o) : tensor_(Tensor::borrow(reinterpret_cast<TensorObject*>(o)->cell)) {}
  ~Borrowed() { tensor_.forget(); }
  Borrowed(const Borrowed&) = delete;
  operator const Tensor&() const { return tensor_; }

 private:
  Tensor tensor_;
};

// A new reference to the one Python object of the tensor's cell, of this class if there is none yet; None for an
// undefined tensor.
PyObject* wrap(Tensor t, PyTypeObject* type = tensor_type);
// A new object of a subclass on the cell, which must not have an object yet.
PyObject* wrap_as(PyTypeObject* type, Tensor t);
PyObject* wrap_list(const TensorList& list, bool as_tuple, PyTypeObject* type = tensor_type);

// Turns the exception being handled into a Python one. Call inside catch (...).
void set_error_from_exception() noexcept;

// Writes it to stderr instead, where none can be raised; a Python exception on its way stays.
void report_exception() noexcept;

// --- scalars, sizes, dtypes (convert.cc, dtype.cc)
PyObject* wrap_dtype(DType t);  // borrowed singleton, new reference
bool is_dtype(PyObject* o);
DType unwrap_dtype(PyObject* o);  // TypeError unless a deepseek.dtype
PyObject* make_size(const Dims& sizes);
// What messages call the object's type: with its module, unless that is Python's or ours ("int", "torch.Tensor").
std::string type_name(PyObject* o);
// The same of what was given for an int; an int itself is one because it needs more than 64 bits.
std::string wrong_int(PyObject* o);
// Another library's tensor, or an array; not NumPy's scalars, which are numbers.
bool is_foreign_tensor(PyObject* o);
bool is_number(PyObject* o);  // bool, int, float, complex or a NumPy scalar
bool to_scalar(PyObject* o, Scalar& out);
bool to_int(PyObject* o, int64_t& out);  // accepts __index__; no error set on false
bool to_dims(PyObject* o, Dims& out);    // a sequence of ints; no error set on false
PyObject* scalar_to_python(const Scalar& s);
PyObject* item(const Tensor& t);
// A Python number as the weakest operand.
Tensor number_tensor(PyObject* o);
// Nested sequences, numbers, arrays, tensors -> a fresh tensor (deepseek.tensor).
Tensor tensor_from_data(PyObject* data, Opt<DType> dtype);

// --- ops (call.cc)
PyObject* make_op_function(const std::string& name, bool method, bool inplace);
void check_device(PyObject* o);  // None, "cpu" or device("cpu"); else a RuntimeError saying there is only the CPU

Generator* generator_of(PyObject* o);  // null for anything else (bind/runtime.cc)

// --- indexing (indexing.cc)
PyObject* tensor_getitem(PyObject* self, PyObject* index);
int tensor_setitem(PyObject* self, PyObject* index, PyObject* value);

// A function that does this while it is captured cannot be replayed.
inline void refuse_capture(const char* why) {
  if (mode().recorder) mode().recorder->refuse(why);
}

// --- parts of the module `m`
inline void add_to_module(PyObject* m, const char* name, const Object& o) {
  checked(PyModule_AddObjectRef(m, name, checked(o.get())));
}
void bind_exceptions(PyObject* m);
void bind_dtypes(PyObject* m);
void bind_tensor(PyObject* m);
void bind_subclass(PyObject* m);
void bind_ops(PyObject* m);
void bind_functions(PyObject* m);
void bind_autograd(PyObject* m);
void bind_autocast(PyObject* m);
void bind_runtime(PyObject* m);
void bind_jit(PyObject* m);
void bind_io(PyObject* m);
// pybind11's own: before anything is bound, and when all is.
void guard_bound_types();
void guard_bound_functions(PyObject* m);

}  // namespace deepseek::python
