#include "io/atomic_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "io/mapped_file.h"

namespace deepseek::io {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "atomic_file_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  static std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  static void put(const std::string& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
  }
  static unsigned mode(const std::string& path) {
    struct stat status;
    return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  }
  size_t files() const { return std::distance(fs::directory_iterator(directory_), fs::directory_iterator()); }
  template <class F>
  static int error_of(F&& f) {
    try {
      f();
    } catch (const IoError& e) {
      return e.code();
    }
    return 0;
  }

  fs::path directory_;
};

TEST_F(AtomicFileTest, CreatesAndReplaces) {
  put(path("a"), "first");
  EXPECT_EQ(content(path("a")), "first");
  put(path("a"), "");
  EXPECT_EQ(content(path("a")), "");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitTheTargetStaysAndNothingIsLeft) {
  put(path("a"), "old");
  {
    AtomicFile file(path("a"));
    file.write("new");
    EXPECT_EQ(files(), 2u);
    EXPECT_EQ(content(path("a")), "old");
  }
  EXPECT_EQ(content(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, FailedWriteLeavesTheTarget) {
  put(path("a"), "old");
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 4096, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const int code = error_of([&] {
    AtomicFile file(path("a"));
    const std::vector<char> big(100'000);
    file.write(big.data(), big.size());
    file.commit();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code, EFBIG);
  EXPECT_EQ(content(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, RemovesWhatKilledWritersLeftAndNothingElse) {
  const std::pair<const char*, bool> cases[] = {
      {".a.0123456789abcdef.tmp", true},   {".a.0123456789abcdeg.tmp", false},
      {".a.0123456789abcde.tmp", false},   {".b.0123456789abcdef.tmp", false},
      {"a.0123456789abcdef.tmp", false},   {".a.0123456789abcdef.tmq", false},
      {".a.00123456789abcdef.tmp", false}, {".a.tmp", false},
  };
  for (const auto& [name, leftover] : cases) std::ofstream(path(name)) << "half";
  AtomicFile living(path("a"));
  put(path("a"), "new");
  for (const auto& [name, leftover] : cases) EXPECT_EQ(fs::exists(path(name)), !leftover) << name;
  living.write("newer");
  living.commit();
  EXPECT_EQ(content(path("a")), "newer");
}

TEST_F(AtomicFileTest, FailedRenameLeavesNothing) {
  {
    AtomicFile file(path("a"));
    file.write("new");
    fs::create_directory(path("a"));  // comes between
    EXPECT_EQ(error_of([&] { file.commit(); }), EISDIR);
  }
  EXPECT_TRUE(fs::is_directory(path("a")));
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, RefusesWhatCannotBeReplaced) {
  EXPECT_EQ(error_of([&] { AtomicFile(path("missing/a")); }), ENOENT);
  EXPECT_EQ(error_of([&] { AtomicFile(directory_.string()); }), EISDIR);
  EXPECT_EQ(error_of([&] { AtomicFile(path("new/")); }), EISDIR);
  EXPECT_EQ(error_of([&] { AtomicFile(""); }), ENOENT);
  EXPECT_EQ(error_of([&] { AtomicFile("/dev/null"); }), EINVAL);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { AtomicFile(path("pipe")); }), EINVAL);
  put(path("a"), "x");
  EXPECT_EQ(error_of([&] { AtomicFile(path("a/b")); }), ENOTDIR);
  EXPECT_EQ(files(), 2u);
}

TEST_F(AtomicFileTest, KeepsTheModeAndHonoursTheUmask) {
  const mode_t before = ::umask(027);
  put(path("new"), "x");
  EXPECT_EQ(mode(path("new")), 0640u);
  ASSERT_EQ(::chmod(path("new").c_str(), 0604), 0);
  put(path("new"), "y");
  EXPECT_EQ(mode(path("new")), 0604u);
  ::umask(before);
}

TEST_F(AtomicFileTest, WritesThroughSymbolicLinks) {
  fs::create_directory(path("real"));
  put(path("real/a"), "old");
  fs::create_symlink("real/a", path("link"));
  fs::create_symlink("link", path("link2"));
  put(path("link2"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link2")));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(content(path("real/a")), "new");
  fs::create_symlink("real/later", path("dangling"));
  put(path("dangling"), "made");
  EXPECT_EQ(content(path("real/later")), "made");
  fs::create_symlink("loop", path("loop"));
  EXPECT_EQ(error_of([&] { AtomicFile(path("loop")); }), ELOOP);
}

TEST_F(AtomicFileTest, TakesTheLongestNameAndRelativePaths) {
  const std::string name(255, 'n');
  put(path(name), "x");
  EXPECT_EQ(content(path(name)), "x");
  const fs::path before = fs::current_path();
  fs::current_path(directory_);
  put("relative", "y");
  fs::current_path(before);
  EXPECT_EQ(content(path("relative")), "y");
}

TEST_F(AtomicFileTest, ConcurrentWritersLeaveOneWholeFile) {
  std::vector<std::thread> writers;
  for (char c = 'a'; c < 'a' + 8; ++c)
    writers.emplace_back([&, c] {
      for (int i = 0; i < 20; ++i) put(path("shared"), std::string(10'000, c));
    });
  for (std::thread& w : writers) w.join();
  const std::string text = content(path("shared"));
  EXPECT_EQ(text, std::string(10'000, text.at(0)));
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, AMappingOfTheOldFileStaysValid) {
  put(path("a"), std::string(1 << 20, 'o'));
  const Ref<MappedFile> old = MappedFile::open(path("a"));
  put(path("a"), "short");
  EXPECT_EQ(old->bytes(), std::string(1 << 20, 'o'));
  EXPECT_EQ(MappedFile::open(path("a"))->bytes(), "short");
}

TEST_F(AtomicFileTest, WritesToAMappingStayPrivate) {
  put(path("a"), "content");
  const Ref<MappedFile> file = MappedFile::open(path("a"));
  file->data()[0] = 'X';
  EXPECT_EQ(file->bytes(), "Xontent");
  EXPECT_EQ(content(path("a")), "content");
}

TEST_F(AtomicFileTest, MappedFileErrors) {
  EXPECT_EQ(error_of([&] { MappedFile::open(path("none")); }), ENOENT);
  EXPECT_EQ(error_of([&] { MappedFile::open(directory_.string()); }), EISDIR);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { MappedFile::open(path("pipe")); }), EINVAL);
  put(path("empty"), "");
  EXPECT_EQ(MappedFile::open(path("empty"))->size(), 0u);
}

}  // namespace
}  // namespace deepseek::io
