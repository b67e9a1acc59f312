// The bytes of a whole file, shared by reference count.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/intrusive.h"

namespace deepseek::io {

// A system call on a file failed; Python sees the OSError subclass of `code` (FileNotFoundError, PermissionError, ...).
class IoError : public Error {
 public:
  IoError(const std::string& what, const std::string& path, int code);
  const std::string& path() const { return path_; }
  const std::string& reason() const { return reason_; }  // without the path
  int code() const { return code_; }                     // errno

 private:
  std::string path_;
  std::string reason_;
  int code_;
};

// Memory is writable but private: writes are copy-on-write and never reach the file. Replacing the file by rename is
// safe while it is mapped; a program that truncates it in place makes later reads fail with SIGBUS, as with every
// mapping.
class MappedFile : public Counted {
 public:
  static Ref<MappedFile> open(const std::string& path);
  // A copy of bytes that do not come from a file; `name` stands for the path in messages.
  static Ref<MappedFile> copy_of(std::string_view bytes, std::string name);
  ~MappedFile();

  char* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view bytes() const { return {data_, size_}; }
  const std::string& name() const { return name_; }  // for messages: always UTF-8

 private:
  MappedFile(std::string name, char* data, size_t size, bool mapped);

  std::string name_;
  char* data_;
  size_t size_;
  bool mapped_;
};

}  // namespace deepseek::io
