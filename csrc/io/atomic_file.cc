#include "io/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>

#include "io/mapped_file.h"

namespace deepseek::io {
namespace {

constexpr size_t kLargestWrite = size_t{1} << 30;  // Linux transfers at most 0x7ffff000 bytes a call
constexpr size_t kLargestStem = 200;               // leaves room for the suffix within a 255-byte name

// The file that a chain of links ends in, whether or not it exists yet.
std::string resolve(const std::string& path) {
  std::string current = path;
  for (int links = 0; links < 40; ++links) {
    char buffer[4096];
    const ssize_t n = ::readlink(current.c_str(), buffer, sizeof buffer);
    if (n < 0 && (errno == EINVAL || errno == ENOENT)) return current;  // not a link, or nothing there
    if (n < 0) throw IoError("cannot resolve", path, errno);
    const std::string to(buffer, static_cast<size_t>(n));
    const size_t slash = current.rfind('/');
    current = to.starts_with('/') || slash == std::string::npos ? to : current.substr(0, slash + 1) + to;
  }
  throw IoError("cannot resolve", path, ELOOP);
}

constexpr size_t kSuffix = 21;  // of random_suffix()

std::string random_suffix() {
  uint64_t bits;
  if (::getrandom(&bits, sizeof bits, 0) != sizeof bits) throw IoError("cannot get", "random bytes", errno);
  char text[kSuffix + 1];
  std::snprintf(text, sizeof text, ".%016llx.tmp", static_cast<unsigned long long>(bits));
  return text;
}

bool is_temporary_of(std::string_view stem, std::string_view name) {
  return name.size() == stem.size() + kSuffix && name.starts_with(stem) && name[stem.size()] == '.' &&
         name.ends_with(".tmp") && name.find_first_not_of("0123456789abcdef", stem.size() + 1) == name.size() - 4;
}

int flock_retry(int fd, int how) {
  int result;
  do result = ::flock(fd, how);
  while (result != 0 && errno == EINTR);
  return result;
}

// Removes temporary files whose writers were killed: a living writer has its file locked. On a file system without
// locks nothing is removed.
void remove_leftovers(const std::string& directory, std::string_view stem) {
  DIR* listing = ::opendir(directory.c_str());
  if (!listing) return;
  while (const dirent* entry = ::readdir(listing)) {
    if (!is_temporary_of(stem, entry->d_name)) continue;
    const int fd = ::openat(::dirfd(listing), entry->d_name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    if (flock_retry(fd, LOCK_EX | LOCK_NB) == 0) ::unlinkat(::dirfd(listing), entry->d_name, 0);
    ::close(fd);
  }
  ::closedir(listing);
}

int fsync_retry(int fd) {
  int result;
  do result = ::fsync(fd);
  while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(resolve(path)) {
  const size_t slash = target_.rfind('/');
  directory_ = slash == std::string::npos ? "." : slash == 0 ? "/" : target_.substr(0, slash);
  struct stat status;
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) throw IoError("cannot write", path_, errno);
  if (exists && S_ISDIR(status.st_mode)) throw IoError("cannot write", path_, EISDIR);
  if (exists && !S_ISREG(status.st_mode)) throw IoError("cannot replace, it is not a regular file", path_, EINVAL);
  if (exists && ::access(target_.c_str(), W_OK) != 0) throw IoError("cannot write", path_, errno);
  open_temporary(exists ? 0600 : 0666);  // nobody else may open a private file before it has its mode
  if (exists && ::fchmod(fd_, status.st_mode & 07777) != 0) {
    const int code = errno;
    ::close(fd_);
    ::unlink(temporary_.c_str());
    throw IoError("cannot set the mode", path_, code);
  }
}

void AtomicFile::open_temporary(unsigned mode) {
  const size_t slash = target_.rfind('/');
  const std::string name = slash == std::string::npos ? target_ : target_.substr(slash + 1);
  if (name.empty()) throw IoError("cannot write", path_, path_.empty() ? ENOENT : EISDIR);
  const std::string stem = "." + name.substr(0, kLargestStem);
  remove_leftovers(directory_, stem);
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = directory_ + "/" + stem + random_suffix();
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd_ < 0 && errno == EEXIST) continue;
    if (fd_ < 0) throw IoError("cannot create a temporary file beside it", path_, errno);
    struct stat status;
    flock_retry(fd_, LOCK_EX);
    // Another writer may have taken it for a leftover before it was locked.
    if (::fstat(fd_, &status) != 0 || status.st_nlink > 0) return;
    ::close(fd_);
  }
  throw IoError("cannot find a free temporary name beside it", path_, EEXIST);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, std::min(bytes, kLargestWrite));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw IoError("cannot write", path_, n < 0 ? errno : EIO);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  if (fsync_retry(fd_) != 0) throw IoError("cannot sync", path_, errno);
  // Opened first, so that a directory that cannot be synced is found out before the target changes.
  const int directory = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) throw IoError("cannot open its directory", path_, errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int code = errno;
    ::close(directory);
    throw IoError("cannot rename the temporary file over it", path_, code);
  }
  ::close(fd_);  // only now, because this gives up the lock; all errors were reported by fsync
  fd_ = -1;
  temporary_.clear();
  const int synced = fsync_retry(directory);
  const int code = errno;
  ::close(directory);
  // Some network and user-space file systems cannot sync a directory; their rename is as durable as they make it.
  if (synced != 0 && code != EINVAL && code != ENOTSUP && code != EROFS)
    throw IoError("written, but its directory could not be synced", path_, code);
}

}  // namespace deepseek::io
