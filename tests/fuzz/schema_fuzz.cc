// The parser of op schemas on any text: an Error, or a schema whose parts are consistent and come out of the text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/check.h"
#include "core/schema/schema.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const deepseek::Schema& schema, std::string_view text) {
  using deepseek::ArgType;
  require(!schema.name.empty() && schema.name.starts_with(schema.base) && !schema.returns.empty());
  int inputs = 0, fields = 0;
  for (const deepseek::SchemaArg& arg : schema.args) {
    require(!arg.name.empty() && text.find(arg.name) != std::string_view::npos);
    require(arg.has_default == !arg.default_text.empty());
    require(text.find(arg.default_text) != std::string_view::npos);
    if (arg.slot >= 0) require(arg.slot == (arg.kind <= ArgType::kGenerator ? inputs++ : fields++));
  }
  require(inputs == schema.num_inputs && fields == schema.num_fields);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    check(deepseek::Schema::parse(text), text);
  } catch (const deepseek::Error&) {
  }
  return 0;
}
