// Names and values of the format between Python and the core.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "sparselogits/shard_layout.h"

namespace sparselogits::python {

std::string ToHex(const Uuid& uuid);
// Throws InvalidArgumentError where the text is not 32 hexadecimal digits.
Uuid UuidFromHex(const std::string& text);
Uuid RandomUuid();

}  // namespace sparselogits::python
