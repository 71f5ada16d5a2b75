// A test harness of one page, so that the core builds and tests with a compiler alone.
//
//   TEST(gamma_code_round_trips) { CHECK_EQ(decoded, value); }
//   int main() { return sparselogits::testing::RunAll(); }
#pragma once

#include <cstdio>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

namespace sparselogits::testing {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& Registry() {
  static std::vector<Test> tests;
  return tests;
}

struct Registrar {
  Registrar(const char* name, void (*body)()) { Registry().push_back({name, body}); }
};

class Failure : public std::exception {
 public:
  explicit Failure(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

[[noreturn]] inline void Fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename A, typename B>
void CheckEqual(const A& a, const B& b, const char* expression, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out << expression << ": " << a << " != " << b;
  Fail(file, line, out.str());
}

inline int RunAll() {
  int failed = 0;
  for (const Test& test : Registry()) {
    try {
      test.body();
      std::printf("ok   %s\n", test.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAIL %s\n     %s\n", test.name, error.what());
    }
  }
  std::printf("%zu tests, %d failed\n", Registry().size(), failed);
  return failed == 0 && !Registry().empty() ? 0 : 1;
}

}  // namespace sparselogits::testing

#define TEST(name)                                                                    \
  static void test_##name();                                                          \
  static const sparselogits::testing::Registrar registrar_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition) \
  ((condition) ? (void)0 : sparselogits::testing::Fail(__FILE__, __LINE__, "CHECK(" #condition ")"))
#define CHECK_EQ(a, b) sparselogits::testing::CheckEqual((a), (b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_OK(expression)                                                                      \
  do {                                                                                            \
    const ::sparselogits::Status check_status = (expression);                                     \
    if (!check_status.ok())                                                                       \
      sparselogits::testing::Fail(__FILE__, __LINE__, #expression ": " + check_status.message()); \
  } while (false)
