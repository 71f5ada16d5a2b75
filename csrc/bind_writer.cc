// sparselogits._core.ShardWriter and recover_shard.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "arrays.h"
#include "bindings.h"
#include "convert.h"
#include "errors.h"
#include "sparselogits/limits.h"
#include "sparselogits/lz4_block.h"
#include "sparselogits/recover.h"
#include "sparselogits/shard_writer.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

// Owns a core writer until it is finished or abandoned. The child of a fork owns none.
class Writer {
 public:
  Writer(const std::string& path, const ShardConfig& config, const std::string& metadata,
         const std::optional<Model>& model) {
    ShardHeader header;
    header.uuid = RandomUuid();
    header.config = config;
    header.block_log2 = kDefaultBlockLog2;
    header.incompatible_features = CurrentLz4() != nullptr ? kFeatureLz4Frames : 0;
    const ModelPtr given = model.has_value() ? model->get() : nullptr;
    WithoutGil([&] { return ShardWriter::Create(path, header, View(metadata), given, &writer_); });
  }
  ~Writer() { Abandon(); }

  ShardWriter& get() const {
    if (writer_ == nullptr)
      ThrowIfError(Status::InvalidArgument("the shard is finished or abandoned already"));
    return *writer_;
  }

  template <typename Work>
  void Run(Work work) {
    ShardWriter& writer = get();
    WithoutGil([&] { return work(writer); });
  }

  void Finish(const std::string& path) {
    Run([&](ShardWriter& writer) { return writer.Finish(path); });
    writer_.reset();
  }
  void Abandon() {
    if (writer_ != nullptr && writer_->is_inherited())
      (void)writer_.release();  // left as it is, whatever another thread was doing to it
    writer_.reset();
  }

 private:
  std::unique_ptr<ShardWriter> writer_;
};

void Append(Writer& writer, const InputArray<int64_t>& input_ids,
            const InputArray<int64_t>& sequence_offsets, const InputArray<int64_t>& offsets,
            const InputArray<int64_t>& token_ids, const std::optional<InputArray<int64_t>>& counts,
            const std::optional<InputArray<float>>& weights,
            const InputArray<uint64_t>& sequence_ids,
            const std::optional<InputArray<uint64_t>>& fingerprints) {
  SequenceInput input;
  input.input_ids = Span(input_ids);
  input.sequence_offsets = Span(sequence_offsets);
  input.offsets = Span(offsets);
  input.token_ids = Span(token_ids);
  if (counts.has_value()) input.counts = Span(*counts);
  if (weights.has_value()) input.weights = Span(*weights);
  input.sequence_ids = Span(sequence_ids);
  if (fingerprints.has_value()) input.fingerprints = Span(*fingerprints);
  writer.Run([&](ShardWriter& shard) { return shard.Append(input); });
}

py::dict Recover(const std::string& partial_path, const std::string& final_path) {
  RecoveredShard recovered;
  WithoutGil([&] { return RecoverShard(partial_path, final_path, &recovered); });
  py::dict dict;
  dict["uuid"] = ToHex(recovered.header.uuid);
  dict["bytes"] = recovered.file_length;
  dict["sequences"] = recovered.totals.num_sequences;
  dict["positions"] = recovered.totals.num_positions;
  dict["entries"] = recovered.totals.num_entries;
  dict["dropped_bytes"] = recovered.dropped_bytes;
  dict["metadata_json"] = ToPython(recovered.metadata);
  dict["config"] = recovered.header.config;
  dict["model_digest"] = recovered.header.model_digest;
  return dict;
}

}  // namespace

void BindWriter(py::module_& module) {
  py::class_<Writer>(module, "ShardWriter")
      .def(py::init<const std::string&, const ShardConfig&, const std::string&,
                    const std::optional<Model>&>(),
           py::arg("partial_path"), py::arg("config"), py::arg("metadata_json"),
           py::arg("model") = py::none())
      .def("append", &Append, py::arg("input_ids").noconvert(),
           py::arg("sequence_offsets").noconvert(), py::arg("offsets").noconvert(),
           py::arg("token_ids").noconvert(), py::arg("counts").noconvert(),
           py::arg("weights").noconvert(), py::arg("sequence_ids").noconvert(),
           py::arg("fingerprints").noconvert())
      .def(
          "has_room",
          [](const Writer& w, uint64_t positions, uint64_t sequences, uint64_t entries) {
            return w.get().HasRoom(positions, sequences, entries);
          },
          py::arg("positions"), py::arg("sequences"), py::arg("entries"))
      .def("commit",
           [](Writer& writer) { writer.Run([](ShardWriter& shard) { return shard.Commit(); }); })
      .def("finish", &Writer::Finish, py::arg("final_path"))
      .def("abandon", &Writer::Abandon)
      .def_property_readonly("num_sequences",
                             [](const Writer& w) { return w.get().totals().num_sequences; })
      .def_property_readonly("num_positions",
                             [](const Writer& w) { return w.get().totals().num_positions; })
      .def_property_readonly("num_entries",
                             [](const Writer& w) { return w.get().totals().num_entries; })
      .def_property_readonly("bytes_written",
                             [](const Writer& w) { return w.get().bytes_written(); })
      .def_property_readonly("uncommitted_bytes",
                             [](const Writer& w) { return w.get().uncommitted_bytes(); })
      .def_property_readonly("uuid", [](const Writer& w) { return ToHex(w.get().uuid()); });
  module.def("recover_shard", &Recover, py::arg("partial_path"), py::arg("final_path"));
}

}  // namespace sparselogits::python
