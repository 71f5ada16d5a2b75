// sparselogits._core.PieceReader and Prefetcher: the arrays of training batches.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <memory>
#include <vector>

#include "arrays.h"
#include "bindings.h"
#include "errors.h"
#include "sparselogits/prefetcher.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

// How long a wait goes on before Python may handle a signal, such as Control-C.
constexpr std::chrono::milliseconds kPatience{20};

// Where the memory of an array goes when nobody holds the array any more.
struct Loan {
  std::shared_ptr<MemoryPool> pool;
  void* data;
  size_t bytes;
};

template <typename T>
py::array_t<T> Lend(const std::shared_ptr<MemoryPool>& pool, Buffer<T>&& buffer,
                    const std::vector<py::ssize_t>& shape) {
  if (buffer.capacity() == 0) return py::array_t<T>(shape);
  const size_t bytes = buffer.capacity() * sizeof(T);
  auto loan = std::make_unique<Loan>(pool, buffer.Release(), bytes);
  const auto* const data = static_cast<const T*>(loan->data);
  const py::capsule owner(loan.get(), [](void* pointer) {
    const std::unique_ptr<Loan> ended(static_cast<Loan*>(pointer));
    ended->pool->Give(ended->data, ended->bytes);
  });
  static_cast<void>(loan.release());
  return py::array_t<T>(shape, data, owner);
}

// input_ids, labels, offsets, token_ids, weights, lengths, sequence_ids, fingerprints
py::tuple Give(const std::shared_ptr<MemoryPool>& pool, PieceBatch&& batch) {
  const auto size = [](const auto& items) { return static_cast<py::ssize_t>(items.size()); };
  const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(batch.num_rows),
                                          static_cast<py::ssize_t>(batch.width)};
  const py::ssize_t num_offsets = size(batch.offsets), num_entries = size(batch.token_ids);
  py::array_t<uint64_t> ids(size(batch.infos)), fingerprints(size(batch.infos));
  for (size_t i = 0; i < batch.infos.size(); ++i) {
    ids.mutable_data()[i] = batch.infos[i].sequence_id;
    fingerprints.mutable_data()[i] = batch.infos[i].fingerprint;
  }
  return py::make_tuple(Lend(pool, std::move(batch.input_ids), shape),
                        Lend(pool, std::move(batch.labels), shape),
                        Lend(pool, std::move(batch.offsets), {num_offsets}),
                        Lend(pool, std::move(batch.token_ids), {num_entries}),
                        Lend(pool, std::move(batch.weights), {num_entries}),
                        CopyArray<int64_t>(batch.lengths), ids, fingerprints);
}

template <typename T>
std::vector<T> Copy(const InputArray<T>& array) {
  return {array.data(), array.data() + array.size()};
}

Pieces MakePieces(const InputArray<int32_t>& caches, const InputArray<int64_t>& sequences,
                  const InputArray<int64_t>& starts, const InputArray<int64_t>& stops,
                  const InputArray<int64_t>& row_offsets) {
  return {Copy(caches), Copy(sequences), Copy(starts), Copy(stops), Copy(row_offsets)};
}

std::unique_ptr<PieceReader> MakePieceReader(const std::vector<const CacheReader*>& caches,
                                             int64_t pad_token_id, size_t max_free_arrays) {
  return std::make_unique<PieceReader>(caches, pad_token_id,
                                       std::make_shared<MemoryPool>(max_free_arrays));
}

py::tuple Read(const PieceReader& reader, const InputArray<int32_t>& caches,
               const InputArray<int64_t>& sequences, const InputArray<int64_t>& starts,
               const InputArray<int64_t>& stops, const InputArray<int64_t>& row_offsets) {
  const Pieces pieces = MakePieces(caches, sequences, starts, stops, row_offsets);
  PieceBatch batch;
  WithoutGil([&] { return reader.Read(pieces, &batch); });
  return Give(reader.pool(), std::move(batch));
}

// The core's prefetcher until it is closed, which another thread may do during a wait.
class Ahead {
 public:
  Ahead(const PieceReader& reader, int num_threads) : reader_(reader) {
    std::unique_ptr<Prefetcher> started;
    WithoutGil([&] { return Prefetcher::Start(num_threads, &started); });
    prefetcher_ = std::move(started);
  }
  ~Ahead() { Close(); }

  void Submit(const InputArray<int32_t>& caches, const InputArray<int64_t>& sequences,
              const InputArray<int64_t>& starts, const InputArray<int64_t>& stops,
              const InputArray<int64_t>& row_offsets) {
    auto pieces =
        std::make_shared<const Pieces>(MakePieces(caches, sequences, starts, stops, row_offsets));
    Get()->Submit([reader = &reader_, pieces = std::move(pieces)](PieceBatch* batch) {
      return reader->Read(*pieces, batch);
    });
  }

  py::tuple Next() {
    std::shared_ptr<Prefetcher> prefetcher = Get();
    if (prefetcher->num_coming() == 0)
      ThrowIfError(Status::InvalidArgument("no batch is coming: submit one first"));
    PieceBatch batch;
    for (bool done = false; !done;) {
      WithoutGil([&] {
        Status status;
        done = prefetcher->Next(kPatience, &status, &batch);
        return status;
      });
      if (!done && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    return Give(reader_.pool(), std::move(batch));
  }

  void Close() {
    std::shared_ptr<Prefetcher> closed = std::exchange(prefetcher_, nullptr);
    const py::gil_scoped_release release;
    closed.reset();
  }

 private:
  std::shared_ptr<Prefetcher> Get() const {
    if (prefetcher_ == nullptr) ThrowIfError(Status::InvalidArgument("the prefetcher is closed"));
    return prefetcher_;
  }

  const PieceReader& reader_;
  std::shared_ptr<Prefetcher> prefetcher_;
};

}  // namespace

void BindLoader(py::module_& module) {
  py::class_<PieceReader>(module, "PieceReader")
      .def(py::init(&MakePieceReader), py::arg("caches"), py::arg("pad_token_id"),
           py::arg("max_free_arrays"), py::keep_alive<1, 2>())
      .def("read", &Read, py::arg("caches").noconvert(), py::arg("sequences").noconvert(),
           py::arg("starts").noconvert(), py::arg("stops").noconvert(),
           py::arg("row_offsets").noconvert());
  py::class_<Ahead>(module, "Prefetcher")
      .def(py::init<const PieceReader&, int>(), py::arg("reader"), py::arg("num_threads"),
           py::keep_alive<1, 2>())
      .def("submit", &Ahead::Submit, py::arg("caches").noconvert(),
           py::arg("sequences").noconvert(), py::arg("starts").noconvert(),
           py::arg("stops").noconvert(), py::arg("row_offsets").noconvert())
      .def("next", &Ahead::Next)
      .def("close", &Ahead::Close);
}

}  // namespace sparselogits::python
