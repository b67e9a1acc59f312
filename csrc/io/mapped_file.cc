#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "io/json.h"
#include "runtime/allocator.h"

namespace deepseek::io {

IoError::IoError(const std::string& what, const std::string& path, int code)
    : Error(path + ": " + what + ": " + std::strerror(code)),
      path_(path),
      reason_(what + ": " + std::strerror(code)),
      code_(code) {}

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() { ::close(fd); }
};

// Paths are bytes; messages are text.
std::string as_text(std::string path) {
  if (json::find_invalid_utf8(path) != std::string::npos)
    for (char& c : path)
      if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  return path;
}

}  // namespace

MappedFile::MappedFile(std::string name, char* data, size_t size, bool mapped)
    : name_(as_text(std::move(name))), data_(data), size_(size), mapped_(mapped) {}

Ref<MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // no wait for a writer of a FIFO
  if (file.fd < 0) throw IoError("cannot open", path, errno);
  struct stat status;
  if (::fstat(file.fd, &status) != 0) throw IoError("cannot stat", path, errno);
  if (S_ISDIR(status.st_mode)) throw IoError("cannot map", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw IoError("cannot map, it is not a regular file", path, EINVAL);
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return Ref<MappedFile>(new MappedFile(path, nullptr, 0, false));
  // No swap is reserved for pages that nobody writes to, which is nearly all of them.
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.fd, 0);
  if (p == MAP_FAILED) {
    if (errno == ENOMEM) fail<OutOfMemoryError>(path, ": no address space to map ", size, " bytes");
    throw IoError("cannot map", path, errno);
  }
  return Ref<MappedFile>(new MappedFile(path, static_cast<char*>(p), size, true));
}

Ref<MappedFile> MappedFile::copy_of(std::string_view bytes, std::string name) {
  if (bytes.empty()) return Ref<MappedFile>(new MappedFile(std::move(name), nullptr, 0, false));
  auto* p = static_cast<char*>(allocate(bytes.size()));
  std::memcpy(p, bytes.data(), bytes.size());
  return Ref<MappedFile>(new MappedFile(std::move(name), p, bytes.size(), false));
}

MappedFile::~MappedFile() {
  if (!data_) return;
  if (mapped_)
    ::munmap(data_, size_);
  else
    deallocate(data_, size_);
}

}  // namespace deepseek::io
