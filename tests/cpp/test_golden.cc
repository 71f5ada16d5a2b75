// The golden files through the core, under the sanitizers where the build has them.
#include <filesystem>
#include <string>

#include "check.h"
#include "golden_models.h"
#include "plain_lz4.h"
#include "sparselogits/verify.h"

using namespace sparselogits;
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> Shards(const char* kind) {
  std::vector<fs::path> shards;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(GOLDEN_DIRECTORY) / kind))
    if (entry.path().extension() == ".slc") shards.push_back(entry.path());
  return shards;
}

Status Verify(const fs::path& path, const Models& models) {
  VerifiedShard verified;
  return VerifyShard(path.string(), models, {}, &verified);
}

}  // namespace

TEST(valid_files_are_accepted) {
  const Models models = sparselogits::testing::GoldenModels(fs::path(GOLDEN_DIRECTORY) / "valid");
  size_t accepted = 0;
  for (const fs::path& path : Shards("valid")) {
    CHECK_OK(Verify(path, models));
    ++accepted;
  }
  CHECK(accepted > 20);
}

TEST(invalid_files_are_refused) {
  const Models models = sparselogits::testing::GoldenModels(fs::path(GOLDEN_DIRECTORY) / "invalid");
  size_t refused = 0;
  for (const fs::path& path : Shards("invalid")) {
    const Status status = Verify(path, models);
    // That the metadata is a JSON object of strings is checked above the core.
    const bool only_json = path.stem().string().starts_with("meta_not_");
    if (status.ok() && !only_json)
      sparselogits::testing::Fail(__FILE__, __LINE__, path.string() + " was accepted");
    if (status.ok()) continue;
    CHECK(status.path() == path.string());
    CHECK(status.offset() >= 0);
    CHECK(!status.field().empty());
    ++refused;
  }
  CHECK(refused > 100);
}

int main() {
  sparselogits::testing::UseAnyLz4();
  return sparselogits::testing::RunAll();
}
