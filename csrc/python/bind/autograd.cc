// Autograd for Python: backward and grad, modes, hooks, grad_fn, user-defined Functions.
#include "autograd/engine.h"
#include "core/dispatch/recorder.h"
#include "python/bind/bind.h"
#include "python/collect.h"
#include "python/slots.h"

namespace deepseek::python {
namespace {

namespace py = pybind11;

class PythonHook final : public Hook {
 public:
  explicit PythonHook(py::object f) : f_(f.release().ptr()) { ++python_holders; }
  ~PythonHook() override {
    --python_holders;
    release(f_);
  }
  Tensor call(const Tensor& grad) override {
    const py::gil_scoped_acquire lock;
    refuse_capture("a hook of a tensor runs");
    const py::object result = py::handle(f_)(grad);
    if (result.is_none()) return {};
    DS_CHECK_AS(TypeError, is_tensor(result.ptr()), "a tensor hook must return a Tensor or None, got ",
                type_name(result.ptr()));
    const Tensor out = unwrap(result.ptr());
    DS_CHECK(out.sizes() == grad.sizes(), "hook has changed the size of value: got ", out.sizes(), ", expected ",
             grad.sizes());
    DS_CHECK(out.dtype() == grad.dtype(), "hook has changed the type of value: got ", name_of(out.dtype()),
             ", expected ", name_of(grad.dtype()));
    return out;
  }
  void* python() const override { return f_; }

 private:
  PyObject* f_;
};

// A tensor in the keeping of a pair of hooks: what `pack` made of it, and `unpack`, which makes it a tensor again.
class PythonStored final : public Stored {
 public:
  PythonStored(PyObject* packed, PyObject* unpack) : packed_(packed), unpack_(Py_NewRef(unpack)) { ++python_holders; }
  ~PythonStored() override {
    --python_holders;
    release(packed_), release(unpack_);
  }
  Tensor restore() const override {
    const py::gil_scoped_acquire lock;
    refuse_capture("a saved-tensor hook runs");
    const py::object result = py::handle(unpack_)(py::handle(packed_));
    DS_CHECK_AS(TypeError, is_tensor(result.ptr()),
                "Output of saved tensor unpack_hook expected to be a Tensor but got ", "result of type ",
                type_name(result.ptr()));
    return unwrap(result.ptr());
  }
  std::array<void*, 2> python() const override { return {packed_, unpack_}; }

 private:
  PyObject *packed_, *unpack_;
};

// The innermost hooks of a thread, and how they are set: each pair is held by who set it.
class PythonSavingHooks final : public SavingHooks {
 public:
  PythonSavingHooks() = default;
  ~PythonSavingHooks() { release(pack_.release().ptr()), release(unpack_.release().ptr()); }  // a thread ends
  PythonSavingHooks(const PythonSavingHooks&) = delete;
  Ref<Stored> store(const Tensor& t) override {
    const py::gil_scoped_acquire lock;
    return Ref<Stored>(new PythonStored(pack_(t).release().ptr(), unpack_.ptr()));
  }
  py::tuple swap(py::object pack, py::object unpack) {
    refuse_capture("saved-tensor hooks are set");
    const auto or_none = [](const py::object& o) { return o ? o : py::none(); };
    py::tuple before = py::make_tuple(or_none(pack_), or_none(unpack_));
    const bool set = !pack.is_none();
    pack_ = set ? std::move(pack) : py::object(), unpack_ = set ? std::move(unpack) : py::object();
    mode().saving = set ? this : nullptr;
    return before;
  }

 private:
  py::object pack_, unpack_;
};
thread_local PythonSavingHooks saving_hooks;

struct NodeRef {
  Ref<Node> node;
  Node& get() const {
    DS_CHECK(node, "this node of the tape was garbage and is gone");
    return *node;
  }
};

// A tensor kept by a Function, with PyTorch's version check.
struct Saved {
  Snapshot snapshot;
  Edge edge;        // of an input
  int output = -1;  // or which output of the Function it is: the node is given when unpacking
  Tensor leaf;      // leaves come back as themselves, so that ctx.saved_tensors returns the user's objects
};

TensorList to_list(const py::list& list) {
  TensorList out;
  for (const py::handle h : list) out.push_back(h.cast<Tensor>());
  return out;
}

// Makes a bound class take part in garbage collection: Visit shows what an object holds, which it lets go of by
// becoming an empty one.
template <class T, void (*Visit)(const T&, TapeVisit&)>
int traverse_bound(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!py::detail::is_holder_constructed(self)) return 0;
  TapeVisit tape(visit, arg);
  Visit(py::handle(self).cast<const T&>(), tape);
  return tape.finish();
}
template <class T>
int clear_bound(PyObject* self) {
  if (!py::detail::is_holder_constructed(self)) return 0;
  const T dropped = std::exchange(py::handle(self).cast<T&>(), T());  // a destructor may run any code
  return 0;
}
template <class T, void (*Visit)(const T&, TapeVisit&)>
py::custom_type_setup collected() {
  return py::custom_type_setup([](PyHeapTypeObject* heap_type) {
    heap_type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    heap_type->ht_type.tp_traverse = &Guarded<&traverse_bound<T, Visit>>::call;
    heap_type->ht_type.tp_clear = &Guarded<&clear_bound<T>>::call;
  });
}

void visit_node(const NodeRef& n, TapeVisit& tape) { tape.node(n.node.get()); }
void visit_saved(const Saved& s, TapeVisit& tape) {
  tape.node(s.edge.node.get());
  tape.tensor(s.leaf);
  if (s.snapshot.stored()) tape.stored(*s.snapshot.stored());
}
}  // namespace

FunctionNode::FunctionNode(PyObject* ctx) : ctx_(Py_NewRef(ctx)) { ++python_holders; }
FunctionNode::~FunctionNode() {
  --python_holders;
  release(ctx_, 1 + outputs_.size());
}

void FunctionNode::add_output(const Tensor& t, uint32_t index) {
  outputs.push_back(t.meta());
  set_edge(t, {Ref<Node>(this), index});
  outputs_.push_back(weak_cell(t));
  Py_INCREF(ctx_);
}

TensorList FunctionNode::backward(Inputs grads, BackwardPass) {
  const py::gil_scoped_acquire lock;
  py::tuple in(grads.size());
  for (size_t i = 0; i < grads.size(); ++i) in[i] = py::cast(grads[i]);
  // The node itself goes along, so that saved outputs need no reference to it (a cycle the collector cannot see).
  const py::object result = py::handle(ctx_).attr("_run_backward")(in, py::cast(NodeRef{Ref<Node>(this)}));
  const py::tuple out = py::isinstance<py::tuple>(result) ? py::tuple(result) : py::make_tuple(result);
  DS_CHECK(out.size() == next.size(), "function ", name_, " returned an incorrect number of gradients (expected ",
           next.size(), ", got ", out.size(), ")");
  TensorList list(next.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const py::object entry = out[i];
    if (entry.is_none()) continue;
    DS_CHECK_AS(TypeError, is_tensor(entry.ptr()), "function ", name_,
                " returned a gradient that is not a Tensor or None at position ", i);
    list[i] = unwrap(entry.ptr());
  }
  return list;
}

void FunctionNode::release_saved() {
  const py::gil_scoped_acquire lock;
  if (py::hasattr(py::handle(ctx_), "_release_saved")) py::handle(ctx_).attr("_release_saved")();
}

void bind_autograd(PyObject* module) {
  auto m = py::reinterpret_borrow<py::module_>(module);
  HostHooks& hooks = host_hooks();
  hooks.release_lock = []() -> void* { return PyGILState_Check() ? PyEval_SaveThread() : nullptr; };
  hooks.retake_lock = [](void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); };
  hooks.check_interrupt = [] {
    if (PyErr_CheckSignals() != 0) throw PythonError();
  };

  m.def("_backward",
        [](const py::list& roots, const py::list& grads, const py::list& inputs, bool retain, bool create) {
          backward(to_list(roots), to_list(grads), to_list(inputs), {retain, create});
        });
  m.def("_grad", [](const py::list& roots, const py::list& grads, const py::list& inputs, bool retain, bool create) {
    const TensorList out = grad(to_list(roots), to_list(grads), to_list(inputs), {retain, create});
    return py::reinterpret_steal<py::list>(wrap_list(out, false));
  });

  m.def("_is_grad_enabled", [] { return mode().grad; });
  m.def("_records", [] { return mode().records(); });
  m.def("_captures", [] { return mode().recorder != nullptr; });
  m.def("_set_grad_enabled", [](bool on) { mode().grad = on; });
  m.def("_is_inference_mode", [] { return mode().inference; });
  m.def("_set_inference_mode", [](bool on) { mode().inference = on; });
  m.def("_register_hook", [](const Tensor& t, py::object f) {
    refuse_capture("a hook is registered");
    return register_hook(t, Ref<Hook>(new PythonHook(std::move(f))));
  });
  m.def("_register_post_accumulate_grad_hook", [](const Tensor& t, py::object f) {
    refuse_capture("a hook is registered");
    return register_post_accumulate_hook(t, Ref<Hook>(new PythonHook(std::move(f))));
  });
  // Which memory a tensor has, without handing out its address (which would forbid keeping copies of it).
  m.def("_memory",
        [](const Tensor& t) { return py::make_tuple(t.storage()->id(), t.offset(), t.storage()->version()); });
  m.def("_swap_saving_hooks",
        [](py::object pack, py::object unpack) { return saving_hooks.swap(std::move(pack), std::move(unpack)); });
  m.def("_remove_hook", [](const Tensor& t, int64_t id) {
    refuse_capture("a hook is removed");
    remove_hook(t, id);
  });

  py::class_<NodeRef>(m, "Node", "A node of the tape.", collected<NodeRef, visit_node>())
      .def("name", [](const NodeRef& n) { return n.get().name(); })
      .def_property_readonly("next_functions",
                             [](const NodeRef& n) {
                               py::tuple out(n.get().next.size());
                               for (size_t i = 0; i < n.get().next.size(); ++i) {
                                 const Edge& e = n.get().next[i];
                                 out[i] = py::make_tuple(e.node ? py::cast(NodeRef{e.node}) : py::none(), e.index);
                               }
                               return out;
                             })
      .def_property_readonly("_sequence_nr", [](const NodeRef& n) { return n.get().sequence; })
      .def(
          "register_prehook",
          [](const NodeRef& n, py::object f) {
            refuse_capture("a hook is registered");
            n.get().hooks.push_back({0, 0, Ref<Hook>(new PythonHook(std::move(f)))});
          },
          "A hook on the gradient of the node's first output.")
      .def("__eq__",
           [](const NodeRef& a, const py::object& b) {
             return py::isinstance<NodeRef>(b) && b.cast<const NodeRef&>().node == a.node;
           })
      .def("__hash__", [](const NodeRef& n) { return reinterpret_cast<size_t>(n.node.get()); })
      .def("__repr__", [](const NodeRef& n) { return "<" + n.get().name() + ">"; });
  m.def("_grad_fn", [](const Tensor& t) -> py::object {
    if (t.is_leaf()) return py::none();
    refuse_capture("grad_fn is read");  // another one on every call
    const Edge e = t.edge();
    return e.node ? py::cast(NodeRef{e.node}) : py::none();
  });
  m.def("_output_nr", [](const Tensor& t) { return t.is_leaf() ? 0u : t.edge().index; });

  struct FunctionRef {
    Ref<Node> node;
    FunctionNode& get() const { return static_cast<FunctionNode&>(*node); }
  };
  py::class_<FunctionRef>(m, "FunctionNode", "The node of a user-defined Function.")
      .def(py::init([](const py::object& ctx) { return FunctionRef{Ref<Node>(new FunctionNode(ctx.ptr()))}; }))
      .def("set_inputs",
           [](const FunctionRef& f, const py::list& inputs) {
             py::tuple needs(inputs.size());
             size_t i = 0;
             for (const py::handle h : inputs) {
               const Tensor t = h.cast<Tensor>();
               const Edge e = t.defined() ? t.edge() : Edge{};
               needs[i++] = static_cast<bool>(e.node);
               f.get().add_next(e);
             }
             return needs;
           })
      .def("set_outputs",
           [](const FunctionRef& f, const py::list& outputs, const py::list& differentiable) {
             DS_CHECK_AS(ValueError, outputs.size() == differentiable.size(), "set_outputs: two lists of one length");
             for (size_t i = 0; i < outputs.size(); ++i) {
               const auto t = outputs[i].cast<Tensor>();
               DS_CHECK_AS(TypeError, t.defined(), "set_outputs: output ", i, " is None");
               if (!differentiable[i].cast<bool>() || !is_differentiable(t.dtype())) {
                 f.get().outputs.push_back(t.meta());
                 continue;
               }
               t.cell()->requires_grad = false;
               f.get().add_output(t, static_cast<uint32_t>(i));
               if (mode().recorder) mode().recorder->record_foreign_edge(t);
             }
           })
      .def_property(
          "name_", [](const FunctionRef& f) { return f.get().name(); },
          [](const FunctionRef& f, const std::string& n) { f.get().set_name(n); });

  py::class_<Saved>(m, "Saved", "A tensor saved for backward, with a version check.", collected<Saved, visit_saved>())
      .def(py::init([](const Tensor& t, int output) {
        Saved s;
        if (!t.defined()) return s;
        s.snapshot = Snapshot(t, true);
        s.output = output;
        if (output >= 0) return s;
        s.edge = t.edge();
        if (t.is_leaf()) s.leaf = t;
        return s;
      }))
      .def("unpack", [](const Saved& s, const py::object& node) {
        const Tensor t = s.snapshot.unpack("Function");
        if (s.leaf.defined()) return s.leaf;
        if (s.output >= 0 && !node.is_none()) {
          const Node& maker = node.cast<const NodeRef&>().get();
          DS_CHECK(s.output < static_cast<int>(maker.outputs.size()), "the node has no output ", s.output);
          set_edge(t, {node.cast<const NodeRef&>().node, static_cast<uint32_t>(s.output)});
        } else if (t.defined() && s.edge.node)
          set_edge(t, s.edge);
        return t;
      });
}

}  // namespace deepseek::python
