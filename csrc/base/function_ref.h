// A callable that is only borrowed for the length of a call, as std::function_ref of C++26.
#pragma once

#include <type_traits>

namespace deepseek {

template <class Signature>
class FunctionRef;

template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...>)
      FunctionRef(F&& f)
      : callable_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* callable, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(callable))(static_cast<Args&&>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(callable_, static_cast<Args&&>(args)...); }

 private:
  void* callable_;
  R (*call_)(void*, Args...);
};

}  // namespace deepseek
