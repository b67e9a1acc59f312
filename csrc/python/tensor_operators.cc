#include "python/tensor_operators.h"

#include "core/dispatch/inplace.h"
#include "ops/pointwise/pointwise.h"
#include "python/subclass.h"

namespace deepseek::python {
namespace {

// A tensor (borrowed) or a number as a tensor; undefined for anything else.
class Operand {
 public:
  Operand(PyObject* o, Subclasses& seen) : borrowed_(is_tensor(o)) {
    if (borrowed_) {
      tensor_ = Tensor::borrow(reinterpret_cast<TensorObject*>(o)->cell);
      seen.see(o);
    } else if (is_number(o)) {
      tensor_ = number_tensor(o);
    }
  }
  ~Operand() {
    if (borrowed_) tensor_.forget();
  }
  Operand(const Operand&) = delete;
  operator const Tensor&() const { return tensor_; }
  bool defined() const { return tensor_.defined(); }

 private:
  Tensor tensor_;
  bool borrowed_;
};

// An operand is neither a tensor nor a number: perhaps a NumPy array, which is something with a buffer. Python's own
// refusal would call another library's tensor a 'Tensor' as it does ours, and == would be False.
[[gnu::cold]] PyObject* with_array(const char* method, PyObject* a, PyObject* b) {
  PyObject* other = is_tensor(a) ? b : a;
  if (!PyObject_CheckBuffer(other)) {
    DS_CHECK_AS(TypeError, !is_foreign_tensor(other), "unsupported operand types for ", method, ": ", type_name(a),
                " and ", type_name(b), "; deepseek.as_tensor() makes a Tensor of the other library's");
    Py_RETURN_NOTIMPLEMENTED;
  }
  return call(from_module("deepseek._tensor.array_operators", "call").get(), to_python(method).get(), a, b).release();
}

[[gnu::cold]] PyObject* by_hook(const char* method, PyObject* a, PyObject* b) {
  if (is_tensor(a)) return call_hooks(method, a, b);
  return call_hooks((std::string("__r") + (method + 2)).c_str(), b, a);  // 2 + x is x.__radd__(2)
}

template <class F>
PyObject* unary(const char* method, PyObject* a, F f) {
  Subclasses seen;
  const Operand x(a, seen);
  if (seen.hooked()) return call_hooks(method, a, nullptr);
  return wrap(f(x), seen.result());
}

// `method` is how Python calls the operator, such as "__add__".
template <class F>
PyObject* binary(const char* method, PyObject* a, PyObject* b, F f) {
  if (is_exact_tensor(a) && is_exact_tensor(b)) [[likely]]
    return wrap(f(Borrowed(a), Borrowed(b)));
  Subclasses seen;
  const Operand x(a, seen), y(b, seen);
  if (!x.defined() || !y.defined()) return with_array(method, a, b);
  if (seen.hooked()) return by_hook(method, a, b);
  return wrap(f(x, y), seen.result());
}

PyObject* inplace(const char* method, PyObject* self, PyObject* b, const OpDef& def) {
  Subclasses seen;
  const Operand x(self, seen), y(b, seen);
  if (!y.defined()) return with_array(method, self, b);
  if (seen.hooked()) return call_hooks(method, self, b);
  const Tensor in[] = {x, y};
  alignas(16) char op[kMaxOpBytes];
  def.init(op);
  dispatch_inplace(def, op, in);
  Py_INCREF(self);
  return self;
}

#define DS_NB(slot, fn)                                                                              \
  PyObject* nb_##slot(PyObject* a, PyObject* b) {                                                    \
    return binary("__" #slot "__", a, b, [](const Tensor& x, const Tensor& y) { return fn(x, y); }); \
  }
#define DS_NB_INPLACE(slot, op)                                                      \
  PyObject* nb_i##slot(PyObject* a, PyObject* b) {                                   \
    return inplace("__i" #slot "__", a, b, pointwise_op(kernels::Pointwise::k##op)); \
  }
#define DS_NB_UNARY(slot, fn)                                                \
  PyObject* nb_##slot(PyObject* a) {                                         \
    return unary("__" #slot "__", a, [](const Tensor& x) { return fn(x); }); \
  }
// clang-format off
DS_NB(add, add)
DS_NB(sub, sub)
DS_NB(mul, mul)
DS_NB(truediv, div)
DS_NB(floordiv, floor_divide)
DS_NB(mod, remainder)
DS_NB(and, bitwise_and)
DS_NB(or, bitwise_or)
DS_NB(xor, bitwise_xor)
DS_NB(lshift, bitwise_left_shift)
DS_NB(rshift, bitwise_right_shift)
DS_NB_INPLACE(add, Add)
DS_NB_INPLACE(sub, Sub)
DS_NB_INPLACE(mul, Mul)
DS_NB_INPLACE(truediv, Div)
DS_NB_INPLACE(floordiv, FloorDivide)
DS_NB_INPLACE(mod, Remainder)
DS_NB_INPLACE(and, BitwiseAnd)
DS_NB_INPLACE(or, BitwiseOr)
DS_NB_INPLACE(xor, BitwiseXor)
DS_NB_INPLACE(lshift, ShiftLeft)
DS_NB_INPLACE(rshift, ShiftRight)
DS_NB_UNARY(neg, neg)
DS_NB_UNARY(abs, abs)
DS_NB_UNARY(invert, bitwise_not)
// clang-format on
PyObject* nb_matmul(PyObject* a, PyObject* b) {
  const auto multiplies = [](PyObject* o) { return is_tensor(o) || !is_number(o); };
  if (!multiplies(a) || !multiplies(b)) Py_RETURN_NOTIMPLEMENTED;  // there is no product with a number
  return binary("__matmul__", a, b, [](const Tensor& x, const Tensor& y) { return matmul(x, y); });
}
PyObject* nb_pow(PyObject* a, PyObject* b, PyObject*) {
  return binary("__pow__", a, b, [](const Tensor& x, const Tensor& y) { return pow(x, y); });
}
PyObject* nb_ipow(PyObject* a, PyObject* b, PyObject*) {
  return inplace("__ipow__", a, b, pointwise_op(kernels::Pointwise::kPow));
}
PyObject* nb_divmod(PyObject* a, PyObject* b) {
  Object quotient = owned(nb_floordiv(a, b));
  if (quotient.is(Py_NotImplemented)) return quotient.release();
  const Object rest = owned(nb_mod(a, b));
  return tuple_of(quotient.get(), rest.get()).release();
}
PyObject* nb_pos(PyObject* a) {
  Py_INCREF(a);
  return a;
}
int nb_bool(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK(t.numel() != 0, "Boolean value of Tensor with no values is ambiguous");
  DS_CHECK(t.numel() == 1, "Boolean value of Tensor with more than one value is ambiguous");
  return t.item().to_bool();
}
PyObject* nb_int(PyObject* self) { return PyNumber_Long(owned(item(unwrap(self))).get()); }
PyObject* nb_float(PyObject* self) { return PyFloat_FromDouble(unwrap(self).item().to_double()); }
PyObject* nb_index(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK_AS(TypeError, is_exact(t.dtype()) && t.numel() == 1,
              "only integer tensors of a single element can be converted to an index");
  return PyLong_FromLongLong(t.item().to_int());
}

PyObject* richcompare(PyObject* a, PyObject* b, int op) {
  // Left to the other object, and after that a tensor equals only itself.
  switch (op) {
    case Py_LT:
      return binary("__lt__", a, b, [](const Tensor& x, const Tensor& y) { return lt(x, y); });
    case Py_LE:
      return binary("__le__", a, b, [](const Tensor& x, const Tensor& y) { return le(x, y); });
    case Py_EQ:
      return binary("__eq__", a, b, [](const Tensor& x, const Tensor& y) { return eq(x, y); });
    case Py_NE:
      return binary("__ne__", a, b, [](const Tensor& x, const Tensor& y) { return ne(x, y); });
    case Py_GT:
      return binary("__gt__", a, b, [](const Tensor& x, const Tensor& y) { return gt(x, y); });
    case Py_GE:
      return binary("__ge__", a, b, [](const Tensor& x, const Tensor& y) { return ge(x, y); });
  }
  Py_RETURN_NOTIMPLEMENTED;
}

}  // namespace

void add_operators(std::vector<Slot>& slots) {
  slots.insert(slots.end(), {
                                slot<Py_tp_richcompare, richcompare>(),
                                slot<Py_nb_add, nb_add>(),
                                slot<Py_nb_subtract, nb_sub>(),
                                slot<Py_nb_multiply, nb_mul>(),
                                slot<Py_nb_true_divide, nb_truediv>(),
                                slot<Py_nb_floor_divide, nb_floordiv>(),
                                slot<Py_nb_remainder, nb_mod>(),
                                slot<Py_nb_divmod, nb_divmod>(),
                                slot<Py_nb_power, nb_pow>(),
                                slot<Py_nb_matrix_multiply, nb_matmul>(),
                                slot<Py_nb_and, nb_and>(),
                                slot<Py_nb_or, nb_or>(),
                                slot<Py_nb_xor, nb_xor>(),
                                slot<Py_nb_lshift, nb_lshift>(),
                                slot<Py_nb_rshift, nb_rshift>(),
                                slot<Py_nb_inplace_add, nb_iadd>(),
                                slot<Py_nb_inplace_subtract, nb_isub>(),
                                slot<Py_nb_inplace_multiply, nb_imul>(),
                                slot<Py_nb_inplace_true_divide, nb_itruediv>(),
                                slot<Py_nb_inplace_floor_divide, nb_ifloordiv>(),
                                slot<Py_nb_inplace_remainder, nb_imod>(),
                                slot<Py_nb_inplace_power, nb_ipow>(),
                                slot<Py_nb_inplace_and, nb_iand>(),
                                slot<Py_nb_inplace_or, nb_ior>(),
                                slot<Py_nb_inplace_xor, nb_ixor>(),
                                slot<Py_nb_inplace_lshift, nb_ilshift>(),
                                slot<Py_nb_inplace_rshift, nb_irshift>(),
                                slot<Py_nb_negative, nb_neg>(),
                                slot<Py_nb_positive, nb_pos>(),
                                slot<Py_nb_absolute, nb_abs>(),
                                slot<Py_nb_invert, nb_invert>(),
                                slot<Py_nb_bool, nb_bool>(),
                                slot<Py_nb_int, nb_int>(),
                                slot<Py_nb_float, nb_float>(),
                                slot<Py_nb_index, nb_index>(),
                            });
}

}  // namespace deepseek::python
