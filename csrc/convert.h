// Names and values of the format between Python and the core.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "sparselogits/compact_model.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits::python {

std::string ToHex(const Uuid& uuid);
// Throws InvalidArgumentError where the text is not 32 hexadecimal digits.
Uuid UuidFromHex(const std::string& text);
Uuid RandomUuid();

// A model as Python holds it.
class Model {
 public:
  explicit Model(ModelPtr model) : model_(std::move(model)) {}
  const CompactModel* operator->() const { return model_.get(); }
  const CompactModel& operator*() const { return *model_; }
  const ModelPtr& get() const { return model_; }

 private:
  ModelPtr model_;
};

// Of a list from Python.
Models ToModels(const std::vector<Model>& models);

}  // namespace sparselogits::python
