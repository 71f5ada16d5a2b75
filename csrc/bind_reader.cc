// sparselogits._core.CacheReader and the functions that look at one shard.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "arrays.h"
#include "bindings.h"
#include "convert.h"
#include "errors.h"
#include "sparselogits/cache_reader.h"
#include "sparselogits/verify.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

using RowTuple = std::tuple<std::string, std::string, uint64_t, uint64_t, uint64_t, uint64_t>;
using Progress = std::function<void(uint64_t, uint64_t)>;

CheckPayload Check(bool verify) { return verify ? CheckPayload::kYes : CheckPayload::kNo; }

std::unique_ptr<CacheReader> OpenCache(const std::vector<RowTuple>& tuples,
                                       const ShardConfig& config, const std::vector<Model>& models,
                                       bool verify_checksums, size_t max_open_shards,
                                       bool shards_come_and_go) {
  std::vector<ShardRow> rows;
  for (const auto& [path, uuid, bytes, sequences, positions, entries] : tuples)
    rows.push_back({path, UuidFromHex(uuid), bytes, {positions, sequences, entries}});
  std::unique_ptr<CacheReader> reader;
  WithoutGil([&] {
    return CacheReader::Open(rows, config, ToModels(models), Check(verify_checksums), &reader,
                             max_open_shards,
                             shards_come_and_go ? ShardFiles::kComeAndGo : ShardFiles::kAllThere);
  });
  return reader;
}

// offsets, token_ids, counts or None, weights or None, input_ids or None
py::tuple Give(const ShardConfig& config, CacheBatch&& batch) {
  const bool counts = config.format.value_kind == ValueKind::kCounts;
  RecordBatch& records = batch.records;
  const py::object none = py::none();
  return py::make_tuple(
      GiveArray(std::move(records.offsets)), GiveArray(std::move(records.token_ids)),
      counts ? py::object(GiveArray(std::move(records.counts))) : none,
      counts ? none : py::object(GiveArray(std::move(records.weights))),
      config.format.store_tokens ? py::object(GiveArray(std::move(batch.tokens))) : none);
}

py::tuple ReadSequences(const CacheReader& reader, const InputArray<int64_t>& indices,
                        int64_t start, int64_t stop) {
  CacheBatch batch;
  WithoutGil([&] { return reader.ReadSequences(Span(indices), start, stop, &batch); });
  const py::array sequence_offsets = GiveArray(std::move(batch.sequence_offsets));
  return Give(reader.config(), std::move(batch)) + py::make_tuple(sequence_offsets);
}

py::tuple ReadPositions(const CacheReader& reader, const InputArray<int64_t>& positions) {
  CacheBatch batch;
  WithoutGil([&] { return reader.ReadPositions(Span(positions), &batch); });
  return Give(reader.config(), std::move(batch));
}

py::tuple SequenceTable(const CacheReader& reader) {
  std::vector<SequenceInfo> infos;
  std::vector<int64_t> starts;
  WithoutGil([&] { return reader.ReadSequenceTable(&infos, &starts); });
  py::array_t<uint64_t> ids(static_cast<py::ssize_t>(infos.size()));
  py::array_t<uint64_t> fingerprints(static_cast<py::ssize_t>(infos.size()));
  for (size_t i = 0; i < infos.size(); ++i) {
    ids.mutable_data()[i] = infos[i].sequence_id;
    fingerprints.mutable_data()[i] = infos[i].fingerprint;
  }
  return py::make_tuple(ids, CopyArray<int64_t>(starts), fingerprints);
}

// sequence_ids, fingerprints, starts, lengths
py::tuple Places(const CacheReader& reader, const InputArray<int64_t>& indices) {
  std::vector<CacheReader::SequencePlace> places;
  WithoutGil([&] { return reader.ReadPlaces(Span(indices), &places); });
  const auto n = static_cast<py::ssize_t>(places.size());
  py::array_t<uint64_t> ids(n), fingerprints(n);
  py::array_t<int64_t> starts(n), lengths(n);
  for (size_t i = 0; i < places.size(); ++i) {
    ids.mutable_data()[i] = places[i].info.sequence_id;
    fingerprints.mutable_data()[i] = places[i].info.fingerprint;
    starts.mutable_data()[i] = places[i].start;
    lengths.mutable_data()[i] = places[i].length;
  }
  return py::make_tuple(ids, fingerprints, starts, lengths);
}

py::dict DescribeShard(const ShardReader& reader) {
  py::dict dict;
  dict["config"] = reader.header().config;
  dict["model_digest"] = reader.header().model_digest;
  dict["uuid"] = ToHex(reader.header().uuid);
  dict["bytes"] = reader.footer().file_length;
  dict["sequences"] = reader.footer().totals.num_sequences;
  dict["positions"] = reader.footer().totals.num_positions;
  dict["entries"] = reader.footer().totals.num_entries;
  return dict;
}

py::dict ReadShardInfo(const std::string& path, const std::vector<Model>& models) {
  std::unique_ptr<ShardReader> reader;
  Bytes metadata;
  WithoutGil([&] {
    SPARSELOGITS_RETURN_IF_ERROR(
        ShardReader::Open(path, ToModels(models), CheckPayload::kYes, &reader));
    return reader->ReadMetadata(&metadata);
  });
  py::dict dict = DescribeShard(*reader);
  dict["metadata_json"] = ToPython(metadata);
  return dict;
}

// Where the index of a shard begins, from nothing but its first and last bytes.
uint64_t IndexOffset(const std::string& path, std::string_view header, std::string_view footer) {
  ShardHeader start;
  Footer end;
  WithoutGil([&] {
    if (header.size() < kHeaderLength || footer.size() != kFooterLength)
      return Status::InvalidArgument("a header and a footer are needed, got " +
                                     std::to_string(header.size()) + " and " +
                                     std::to_string(footer.size()) + " bytes");
    SPARSELOGITS_RETURN_IF_ERROR(DecodeHeader(View(header), &start).In(path));
    return DecodeFooter(View(footer), start.uuid, &end).In(path);
  });
  return end.index_offset;
}

// first byte and end of each SEQS frame; the end is the furthest that it can have
std::vector<std::pair<uint64_t, uint64_t>> SequenceFrames(const std::string& path,
                                                          const std::vector<Model>& models) {
  std::unique_ptr<ShardReader> reader;
  WithoutGil(
      [&] { return ShardReader::Open(path, ToModels(models), CheckPayload::kYes, &reader); });
  std::vector<std::pair<uint64_t, uint64_t>> frames;
  for (uint32_t i = 0; i < reader->index().num_sequence_frames(); ++i)
    frames.push_back(reader->SequenceFrameRange(i));
  return frames;
}

py::dict SectionBits(const FrameSections& s, uint64_t index_bits) {
  py::dict bits;
  const auto put = [&bits](const char* name, uint64_t value) { bits[name] = value; };
  put("header", kHeaderLength * 8);
  put("metadata", s.metadata);
  put("frame_headers", s.frame_headers + kFrameHeaderLength * 8);
  put("block_headers", s.block.block_header);
  put("directory", s.block.directory);
  put("tokens", s.block.tokens);
  put("presence", s.block.presence);
  put("counts", s.block.counts);
  put("entry_numbers", s.block.entry_numbers);
  put("ids", s.block.ids);
  put("weights", s.block.weights);
  put("classes", s.block.classes);
  put("stretch_padding", s.block.stretch_padding);
  put("sequence_ids", s.sequence_ids);
  put("fingerprints", s.fingerprints);
  put("lengths", s.lengths);
  put("commits", s.commits);
  put("wrapped_blocks", s.wrapped_blocks);
  put("wrapped_others", s.wrapped_others);
  put("index", index_bits);
  put("padding", s.padding);
  put("footer", kFooterLength * 8);
  return bits;
}

py::dict DescribeFault(const ShardFault& fault) {
  py::dict dict;
  dict["error"] = MakeException(fault.status);
  dict["first_sequence"] = fault.first_sequence;
  dict["last_sequence"] = fault.last_sequence;
  dict["concerns_all"] = fault.concerns_all;
  dict["sequence_ids"] = CopyArray<uint64_t>(fault.sequence_ids);
  return dict;
}

// What the shard holds; only `faults` where there are any.
py::dict VerifyShardFile(const std::string& path, const std::vector<Model>& models, bool keep_going,
                         const Progress& progress) {
  VerifiedShard verified;
  WithoutGil([&] {
    std::unique_ptr<MappedFile> file;
    SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(path, &file));
    ShardWalker::Progress report;
    if (progress)
      report = [&progress, total = file->bytes().size()](uint64_t done) {
        const py::gil_scoped_acquire acquire;
        progress(done, total);
      };
    const AfterFault after = keep_going ? AfterFault::kGoOn : AfterFault::kStop;
    verified = FindFaults(std::move(file), ToModels(models), after, report);
    return Status::Ok();
  });
  py::list faults;
  for (const ShardFault& fault : verified.faults) faults.append(DescribeFault(fault));
  py::dict dict;
  if (verified.faults.empty()) {
    dict = DescribeShard(*verified.reader);
    const Footer& footer = verified.reader->footer();
    const uint64_t index_bytes =
        footer.file_length - footer.index_offset - kFrameHeaderLength - kFooterLength;
    dict["sections"] = SectionBits(verified.walker->sections(), index_bytes * 8);
    dict["metadata_json"] = ToPython(verified.walker->metadata());
    dict["sequence_ids"] = CopyArray<uint64_t>(verified.walker->sequence_ids());
  }
  dict["faults"] = faults;
  return dict;
}

}  // namespace

void BindReader(py::module_& module) {
  py::class_<CacheReader>(module, "CacheReader")
      .def(py::init(&OpenCache), py::arg("rows"), py::arg("config"), py::arg("models"),
           py::arg("verify_checksums"), py::arg("max_open_shards") = kMaxOpenShards,
           py::arg("shards_come_and_go") = false)
      .def_property_readonly("num_sequences", &CacheReader::num_sequences)
      .def_property_readonly("num_positions", &CacheReader::num_positions)
      .def_property_readonly("num_entries", &CacheReader::num_entries)
      .def("read_sequences", &ReadSequences, py::arg("indices").noconvert(), py::arg("start") = 0,
           py::arg("stop") = -1)
      .def("read_positions", &ReadPositions, py::arg("positions").noconvert())
      .def("places", &Places, py::arg("indices").noconvert())
      .def("sequence_table", &SequenceTable)
      .def(
          "admit",
          [](const CacheReader& reader, int64_t shard) {
            WithoutGil([&] { return reader.Admit(shard); });
          },
          py::arg("shard"))
      .def(
          "dismiss",
          [](const CacheReader& reader, int64_t shard) {
            WithoutGil([&] { return reader.Dismiss(shard); });
          },
          py::arg("shard"));
  module.def("read_shard_info", &ReadShardInfo, py::arg("path"), py::arg("models"));
  module.def("index_offset", &IndexOffset, py::arg("path"), py::arg("header"), py::arg("footer"));
  module.def("sequence_frames", &SequenceFrames, py::arg("path"), py::arg("models"));
  module.def("verify_shard", &VerifyShardFile, py::arg("path"), py::arg("models"),
             py::arg("keep_going"), py::arg("progress") = py::none());
}

}  // namespace sparselogits::python
