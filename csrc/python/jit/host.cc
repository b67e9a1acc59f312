#include "python/jit/host.h"

#include <algorithm>

#include "core/dispatch/autocast.h"
#include "core/dispatch/recorder.h"
#include "jit/recording.h"
#include "python/jit/observe.h"

namespace deepseek::python {

namespace {

class AutocastRestore {
 public:
  AutocastRestore() : on_(mode().autocast), dtype_(mode().autocast_dtype) {}
  ~AutocastRestore() { mode().autocast = on_, mode().autocast_dtype = dtype_; }
  AutocastRestore(const AutocastRestore&) = delete;

 private:
  bool on_;
  DType dtype_;
};

// Whether a result says more than tensors and None do: only those are passed on when a call is replayed.
bool holds_value(const Tree& t) {
  if (t.kind == Tree::kValue || t.kind == Tree::kObject) return !t.value.is_none();
  return std::ranges::any_of(t.children, holds_value);
}

// Only tensors among the arguments are exchanged on a replay: all else must be what it was before the call.
void check_known(const StateWalk& walk, PyObject* function, PyObject* args, PyObject* kwargs, Recorder& recording) {
  for (PyObject* o : {function, args, kwargs})
    if (const std::string why = walk.made_in_call(o); !why.empty())
      recording.refuse("a function that runs on every replay is, or is given, " + why);
  if (const std::string change = walk.change(); !change.empty())
    recording.refuse("it changes the program's state before a function that runs on every replay: " + change);
}

}  // namespace

PythonCall::PythonCall(PyObject* function, Tree args, Tree kwargs)
    : function_(Object::borrow(function)),
      args_(std::move(args)),
      kwargs_(std::move(kwargs)),
      autocast_(mode().autocast),
      autocast_dtype_(mode().autocast_dtype) {}

PythonCall::~PythonCall() {
  const InterpreterLock lock;
  function_ = Object();
  args_ = kwargs_ = Tree();
}

std::string PythonCall::name() const {
  const InterpreterLock lock;
  return str(get_attribute_or(function_.get(), "__qualname__", to_python("a function").get()).get());
}

TensorList PythonCall::call(Inputs in) {
  const InterpreterLock lock;
  const AutocastRestore restore;
  mode().autocast = autocast_;
  mode().autocast_dtype = autocast_dtype_;
  const TensorList tensors(in);
  size_t next = 0;
  Containers made;
  const Object args = owned(build(args_, tensors, next, made));
  const Object kwargs = owned(build(kwargs_, tensors, next, made));
  const Object result = owned(PyObject_Call(function_.get(), args.get(), kwargs.get()));
  TensorList out;
  flatten(result.get(), out);
  return out;
}

int PythonCall::traverse(visitproc visit, void* arg) const {
  Py_VISIT(function_.get());
  if (const int stop = python::traverse(args_, visit, arg)) return stop;
  return python::traverse(kwargs_, visit, arg);
}

PyObject* jit_host(PyObject* function, PyObject* args, PyObject* kwargs) {
  auto* recording = dynamic_cast<jit::Recording*>(mode().recorder);
  DS_CHECK(recording, "jit: nothing is being recorded");
  TensorList in, out;
  Tree given = flatten(args, in), named = flatten(kwargs, in);
  Object result;
  {
    const RecorderPause pause;
    const OwnAutocastCache casts;
    const Observer::Pause unobserved;
    if (const StateWalk* walk = Observer::walk()) check_known(*walk, function, args, kwargs, *recording);
    result = owned(PyObject_Call(function, args, kwargs));
  }
  if (holds_value(flatten(result.get(), out)))
    recording->refuse("a function that runs on every replay returns something else than tensors and None");
  TensorList after;
  if (!match(given, args, after, nullptr) || !match(named, kwargs, after, nullptr))
    recording->refuse("a function that runs on every replay changes a container it is given");
  recording->record_host(Ref<jit::HostCall>(new PythonCall(function, std::move(given), std::move(named))), in, out);
  return result.release();
}

}  // namespace deepseek::python
