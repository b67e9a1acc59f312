#include "python/jit/code.h"

namespace deepseek::python {

namespace {

// Numbers of the instructions looked for; -1 where this Python has no such instruction.
struct Opcodes {
  int extended_arg, load_global, load_name, load_from_dict, load_attr, load_method, load_super_attr;
  int store_global, store_name, delete_global, delete_name, store_attr, delete_attr, import_name, import_from;
  int push_exc_info, with_except_start, cache;

  Opcodes() {
    const Object map = from_module("opcode", "opmap");
    const auto number = [&](const char* name) {
      PyObject* found = PyDict_GetItemString(map.get(), name);
      const int n = found ? static_cast<int>(int_of(found)) : -1;
      return n < 256 ? n : -1;  // larger ones are the compiler's alone
    };
    extended_arg = number("EXTENDED_ARG");
    load_global = number("LOAD_GLOBAL");
    load_name = number("LOAD_NAME");
    load_from_dict = number("LOAD_FROM_DICT_OR_GLOBALS");
    load_attr = number("LOAD_ATTR");
    load_method = number("LOAD_METHOD");
    load_super_attr = number("LOAD_SUPER_ATTR");
    store_global = number("STORE_GLOBAL");
    store_name = number("STORE_NAME");
    delete_global = number("DELETE_GLOBAL");
    delete_name = number("DELETE_NAME");
    store_attr = number("STORE_ATTR");
    delete_attr = number("DELETE_ATTR");
    import_name = number("IMPORT_NAME");
    import_from = number("IMPORT_FROM");
    push_exc_info = number("PUSH_EXC_INFO");
    with_except_start = number("WITH_EXCEPT_START");
    cache = number("CACHE");
  }
};

}  // namespace

CodeUse use_of(PyCodeObject* code) {
  static const Opcodes op;
  CodeUse use;
  use.names.resize(static_cast<size_t>(PyTuple_GET_SIZE(code->co_names)));
  const Object text = owned(PyCode_GetCode(code));
  const auto* bytes = reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(text.get()));
  const Py_ssize_t n = PyBytes_GET_SIZE(text.get());
  const auto note = [&](uint32_t index, uint8_t how) {
    if (index < use.names.size()) use.names[index] |= how;
  };
  // 3.11 has an instruction of its own for methods, 3.12 a bit in the argument.
  const bool bit = op.load_method < 0;
  bool handler = false;  // the instruction before began one
  uint32_t high = 0;
  for (Py_ssize_t i = 0; i + 1 < n; i += 2) {
    const int o = bytes[i];
    const uint32_t arg = high << 8 | bytes[i + 1];
    high = o == op.extended_arg ? arg : 0;
    if (o == op.extended_arg || o == op.cache) continue;
    if (handler && o != op.with_except_start) use.handles = true;
    handler = o == op.push_exc_info;
    if (o == op.load_global)
      note(arg >> 1, arg & 1 ? kGlobalCalled : kGlobalRead);
    else if (o == op.load_name || o == op.load_from_dict)
      note(arg, kGlobalRead);
    else if (o == op.store_global || o == op.delete_global || o == op.store_name || o == op.delete_name)
      note(arg, kGlobalWritten);
    else if (o == op.load_attr)
      note(bit ? arg >> 1 : arg, bit && arg & 1 ? kAttributeCalled : kAttributeRead);
    else if (o == op.load_method)
      note(arg, kAttributeCalled);
    else if (o == op.load_super_attr)
      note(arg >> 2, kAttributeRead);
    else if (o == op.store_attr || o == op.delete_attr)
      note(arg, kAttributeWritten);
    else if (o == op.import_from)
      note(arg, kAttributeRead);
    else if (o == op.import_name)
      note(arg, kImported);
  }
  return use;
}

}  // namespace deepseek::python
