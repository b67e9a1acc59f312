// Writes a file so that readers see either the old content or all of the new one, also after a crash.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace deepseek::io {

// The bytes go to a uniquely named file in the target's directory. commit() syncs it, renames it over the target and
// syncs the directory; without commit() the destructor removes it and the target stays as it was. What a killed writer
// left is removed by the next one of the same target. A mapping of the old target stays valid. A replaced file keeps
// its permission bits, a new one follows the umask; a symbolic link is written through. Throws IoError.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  void commit();

 private:
  void open_temporary(unsigned mode);

  std::string path_;    // as the caller named it, for messages
  std::string target_;  // with symbolic links resolved
  std::string directory_;
  std::string temporary_;  // empty once renamed
  int fd_ = -1;
};

}  // namespace deepseek::io
