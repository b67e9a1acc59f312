// Watches what a call does while it is recorded: which code runs, which C functions are called.
#pragma once

#include "python/jit/walk.h"

namespace deepseek::python {

// A profile function while it lives. One that was installed before goes on being called.
class Observer {
 public:
  // Only what runs while `recorder` listens counts.
  Observer(StateWalk& walk, Recorder* recorder);
  ~Observer();
  Observer(const Observer&) = delete;

  // Nobody watches while it lives: for functions that run on every replay.
  class Pause {
   public:
    Pause();
    ~Pause();
    Pause(const Pause&) = delete;

   private:
    Observer* paused_;
  };

  // That of the call being recorded here, and whether deepseek loaded modules of its own meanwhile.
  static StateWalk* walk() { return active_ ? &active_->walk_ : nullptr; }
  bool loaded() const { return loaded_; }

 private:
  static int event(PyObject* self, PyFrameObject* frame, int what, PyObject* arg);
  void look(PyFrameObject* frame, int what, PyObject* arg);

  StateWalk& walk_;
  Recorder* recorder_;
  Py_tracefunc before_;
  Object before_arg_;
  Observer* outer_;
  PyFrameObject* loading_ = nullptr;  // the frame in which deepseek loads a module: what runs inside is not the call's
  bool loaded_ = false;
  static thread_local Observer* active_;
};

}  // namespace deepseek::python
