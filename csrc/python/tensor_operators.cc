#include "python/tensor_operators.h"

namespace deepseek::python {
namespace {

// A tensor (borrowed) or a number as a tensor; undefined for anything else.
class Operand {
 public:
  explicit Operand(PyObject* o) : borrowed_(is_tensor(o)) {
    if (borrowed_)
      tensor_ = Tensor::borrow(reinterpret_cast<TensorObject*>(o)->cell);
    else if (is_number(o))
      tensor_ = number_tensor(o);
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

template <class F>
PyObject* binary(PyObject* a, PyObject* b, F f) {
  const Operand x(a), y(b);
  if (!x.defined() || !y.defined()) Py_RETURN_NOTIMPLEMENTED;
  return wrap(f(x, y));
}

template <class F>
PyObject* inplace(PyObject* self, PyObject* b, const OpDef& def, F make_op) {
  const Operand y(b);
  if (!y.defined()) Py_RETURN_NOTIMPLEMENTED;
  const Tensor in[] = {unwrap(self), y};
  alignas(16) char op[kMaxOpBytes];
  make_op(def, op);
  dispatch_inplace(def, op, in);
  Py_INCREF(self);
  return self;
}
void default_op(const OpDef& def, char* op) { def.init(op); }

#define DS_NB(slot, fn)                                                             \
  PyObject* nb_##slot(PyObject* a, PyObject* b) {                                   \
    return binary(a, b, [](const Tensor& x, const Tensor& y) { return fn(x, y); }); \
  }
#define DS_NB_INPLACE(slot, name)                  \
  PyObject* nb_i##slot(PyObject* a, PyObject* b) { \
    static const OpDef& def = *find_op(name);      \
    return inplace(a, b, def, default_op);         \
  }
// clang-format off
DS_NB(add, add)
DS_NB(sub, sub)
DS_NB(mul, mul)
DS_NB(div, div)
DS_NB(floordiv, floor_divide)
DS_NB(mod, remainder)
DS_NB(and, bitwise_and)
DS_NB(or, bitwise_or)
DS_NB(xor, bitwise_xor)
DS_NB(lshift, bitwise_left_shift)
DS_NB(rshift, bitwise_right_shift)
DS_NB(matmul, matmul)
DS_NB_INPLACE(add, "add")
DS_NB_INPLACE(sub, "sub")
DS_NB_INPLACE(mul, "mul")
DS_NB_INPLACE(div, "div")
DS_NB_INPLACE(floordiv, "floor_divide")
DS_NB_INPLACE(mod, "remainder")
DS_NB_INPLACE(and, "bitwise_and")
DS_NB_INPLACE(or, "bitwise_or")
DS_NB_INPLACE(xor, "bitwise_xor")
DS_NB_INPLACE(lshift, "bitwise_left_shift")
DS_NB_INPLACE(rshift, "bitwise_right_shift")
DS_NB_INPLACE(pow2, "pow")
// clang-format on
PyObject* nb_pow(PyObject* a, PyObject* b, PyObject*) {
  return binary(a, b, [](const Tensor& x, const Tensor& y) { return pow(x, y); });
}
PyObject* nb_ipow(PyObject* a, PyObject* b, PyObject*) { return nb_ipow2(a, b); }
PyObject* nb_neg(PyObject* a) { return wrap(neg(unwrap(a))); }
PyObject* nb_pos(PyObject* a) {
  Py_INCREF(a);
  return a;
}
PyObject* nb_abs(PyObject* a) { return wrap(abs(unwrap(a))); }
PyObject* nb_invert(PyObject* a) { return wrap(bitwise_not(unwrap(a))); }
int nb_bool(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK(t.numel() != 0, "Boolean value of Tensor with no values is ambiguous");
  DS_CHECK(t.numel() == 1, "Boolean value of Tensor with more than one value is ambiguous");
  return t.item().to_bool();
}
PyObject* nb_int(PyObject* self) {
  PyObject* value = checked(item(unwrap(self)));
  PyObject* out = PyNumber_Long(value);
  Py_DECREF(value);
  return out;
}
PyObject* nb_float(PyObject* self) { return PyFloat_FromDouble(unwrap(self).item().to_double()); }
PyObject* nb_index(PyObject* self) {
  const Tensor t = unwrap(self);
  DS_CHECK_AS(TypeError, !is_floating(t.dtype()) && t.numel() == 1,
              "only integer tensors of a single element can be converted to an index");
  return PyLong_FromLongLong(t.item().to_int());
}

PyObject* richcompare(PyObject* a, PyObject* b, int op) {
  if (!is_tensor(b) && !is_number(b)) {
    if (op == Py_EQ) Py_RETURN_FALSE;  // as PyTorch: a tensor equals no other object
    if (op == Py_NE) Py_RETURN_TRUE;
    Py_RETURN_NOTIMPLEMENTED;
  }
  return binary(a, b, [op](const Tensor& x, const Tensor& y) {
    switch (op) {
      case Py_LT:
        return lt(x, y);
      case Py_LE:
        return le(x, y);
      case Py_EQ:
        return eq(x, y);
      case Py_NE:
        return ne(x, y);
      case Py_GT:
        return gt(x, y);
      default:
        return ge(x, y);
    }
  });
}

}  // namespace

void add_operators(std::vector<Slot>& slots) {
  slots.insert(slots.end(), {
                                slot<Py_tp_richcompare, richcompare>(),
                                slot<Py_nb_add, nb_add>(),
                                slot<Py_nb_subtract, nb_sub>(),
                                slot<Py_nb_multiply, nb_mul>(),
                                slot<Py_nb_true_divide, nb_div>(),
                                slot<Py_nb_floor_divide, nb_floordiv>(),
                                slot<Py_nb_remainder, nb_mod>(),
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
                                slot<Py_nb_inplace_true_divide, nb_idiv>(),
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
