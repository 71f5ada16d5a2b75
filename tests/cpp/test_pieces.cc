// Batches of pieces: what they hold, what is refused, and whose memory they use.
#include <filesystem>
#include <fstream>
#include <limits>

#include "known_pieces.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

Pieces OnePiece(int32_t cache, int64_t sequence, int64_t start, int64_t stop) {
  return {{cache}, {sequence}, {start}, {stop}, {0, 1}};
}

// Two caches that differ in content, blocks and shards.
struct TwoCaches {
  KnownCache plain{3, 8, 1}, repeating{1, 24, 7};
  std::unique_ptr<CacheReader> first = plain.Open(2), second = repeating.Open();
  std::shared_ptr<MemoryPool> pool = std::make_shared<MemoryPool>(40);
  PieceReader reader{{first.get(), second.get()}, kPadToken, pool};
  std::vector<const KnownSequences*> contents{&plain.content, &repeating.content};
};

// What ends with a batch that nobody holds any more.
void GiveBack(MemoryPool* pool, PieceBatch* batch) {
  pool->Give(&batch->input_ids);
  pool->Give(&batch->labels);
  pool->Give(&batch->offsets);
  pool->Give(&batch->token_ids);
  pool->Give(&batch->weights);
}

}  // namespace

TEST(a_batch_holds_its_pieces_and_padding) {
  const TwoCaches caches;
  std::mt19937 random(1);
  for (size_t i = 0; i < 200; ++i) {
    const Pieces pieces = RandomPieces(&random, 2, 24, i % 6);
    PieceBatch batch;
    CHECK_OK(caches.reader.Read(pieces, &batch));
    CheckPieces(caches.contents, pieces, batch);
  }
}

TEST(memory_that_was_given_back_is_used_again_and_memory_that_is_held_is_not) {
  const TwoCaches caches;
  std::mt19937 random(2);
  struct Held {
    Pieces pieces;
    PieceBatch batch;
  };
  std::vector<Held> held;
  size_t reused = 0;
  const int64_t* given = nullptr;
  for (int i = 0; i < 200; ++i) {
    Held made{RandomPieces(&random, 2, 24, 4), {}};
    CHECK_OK(caches.reader.Read(made.pieces, &made.batch));
    CheckPieces(caches.contents, made.pieces, made.batch);
    reused += made.batch.input_ids.data() == given || made.batch.labels.data() == given;
    if (i % 4 == 0) {
      held.push_back(std::move(made));
      continue;
    }
    given = made.batch.input_ids.data();
    GiveBack(caches.pool.get(), &made.batch);
  }
  for (const Held& one : held) CheckPieces(caches.contents, one.pieces, one.batch);
  CHECK(reused > 20);
}

TEST(a_pool_keeps_the_largest_blocks_and_no_more_than_its_limit) {
  MemoryPool pool(2);
  std::vector<Buffer<int64_t>> buffers;
  for (const size_t size : {size_t{1000}, size_t{3000}, size_t{2000}})
    buffers.push_back(pool.Take<int64_t>(size));
  const int64_t *const two = buffers[2].data(), *const three = buffers[1].data();
  for (Buffer<int64_t>& buffer : buffers) pool.Give(&buffer);
  CHECK(pool.Take<int64_t>(0).data() == nullptr);
  Buffer<int64_t> smallest = pool.Take<int64_t>(1);  // the least that is large enough
  CHECK(smallest.data() == two);
  CHECK_EQ(smallest.capacity(), size_t{2000});
  Buffer<int32_t> other = pool.Take<int32_t>(5999);
  CHECK(static_cast<void*>(other.data()) == static_cast<const void*>(three));
  CHECK_EQ(other.capacity(), size_t{6000});
}

TEST(pieces_that_are_not_there_are_refused) {
  const TwoCaches caches;
  PieceBatch batch;
  const auto code = [&](const Pieces& pieces) { return caches.reader.Read(pieces, &batch).code(); };
  CHECK_OK(caches.reader.Read(OnePiece(1, 23, 50, -1), &batch));
  for (const Pieces& wrong : {OnePiece(2, 0, 0, -1), OnePiece(-1, 0, 0, -1), OnePiece(0, 24, 0, -1),
                              OnePiece(0, -1, 0, -1), OnePiece(0, 0, 51, -1), OnePiece(0, 0, 0, 51),
                              OnePiece(0, 0, 20, 19), OnePiece(0, 0, -1, 5),
                              OnePiece(0, 0, std::numeric_limits<int64_t>::max(), -1)})
    CHECK(code(wrong) == StatusCode::kInvalidArgument);
  Pieces pieces = OnePiece(0, 0, 0, -1);
  for (const std::vector<int64_t>& rows :
       std::vector<std::vector<int64_t>>{{}, {1}, {0}, {0, 2}, {0, 2, 1}, {-1, 1}}) {
    pieces.row_offsets = rows;
    CHECK(code(pieces) == StatusCode::kInvalidArgument);
  }
  pieces = OnePiece(0, 0, 0, -1);
  pieces.stops.clear();
  CHECK(code(pieces) == StatusCode::kInvalidArgument);
}

TEST(a_damaged_block_is_named_and_costs_no_other_batch) {
  const KnownCache cache(2, 8, 1);
  const std::string path = cache.rows[1].path;
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) / 3));
    file.write("\xff\xff\xff\xff", 4);
  }
  const std::unique_ptr<CacheReader> opened = cache.Open();
  const PieceReader reader({opened.get()}, kPadToken, std::make_shared<MemoryPool>(8));
  PieceBatch batch;
  CHECK_OK(reader.Read(OnePiece(0, 7, 0, -1), &batch));
  CheckPieces({&cache.content}, OnePiece(0, 7, 0, -1), batch);
  const Status status = reader.Read(OnePiece(0, 8, 0, -1), &batch);
  CHECK(status.code() == StatusCode::kCorruption);
  CHECK_EQ(status.path(), path);
  CHECK(status.offset() > 0);
}

int main() { return RunAll(); }
