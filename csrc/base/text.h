// Pieces of sentences.
#pragma once

#include <string>
#include <vector>

namespace deepseek {

// "a, b or c"
inline std::string either(const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += i + 1 < parts.size() ? ", " : " or ";
    text += parts[i];
  }
  return text;
}

}  // namespace deepseek
