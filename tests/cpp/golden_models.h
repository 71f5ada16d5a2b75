// The codec models that lie beside golden shards.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>

#include "sparselogits/compact_model.h"

namespace sparselogits::testing {

// The sound ones of a directory: a shard whose model is damaged must be refused for lack of it.
inline Models GoldenModels(const std::filesystem::path& directory) {
  Models models;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".slm") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    const Bytes bytes(std::istreambuf_iterator<char>(file), {});
    ModelPtr model;
    if (CompactModel::Parse(bytes, &model).ok()) models.push_back(std::move(model));
  }
  return models;
}

}  // namespace sparselogits::testing
