// Draws from few tokens, with no order of the candidates before: one phase of all warps,
// and one of one warp.
//
// Shapes: up to 93 candidates, of which up to 64 are the tokens. In the first phase three warps
// weigh the candidates, one of each lane, and the others count for each how many are better and
// how many have smaller ids. In the second a warp scans the masses by rank, which tells how many are kept, and
// those by id, on which the target of the draw falls: two and three of each lane, in halves that need no
// carry.
#pragma once

#include "tail.cuh"

// Weighs n candidates beside their largest: for some warps, of which each lane has one but the last, which has
// the largest of all. Returns why the row has no tokens, of which top-k leaves k.
template <class T, class W, class B>
DEVICE Status weigh_few(u32 n, u32 k, float softcap) {
  constexpr u32 kLast = kWarp - 1;
  Tail<W>& tail = block_tail<B>();
  const W* words = the_block<B>().candidates;
  const u32 lane = thread_index() % kWarp, at = thread_index() / kWarp * kLast + lane;
  const auto key_at = [&](u32 i) { return i < n ? Word<W>::key(words[i]) : 0; };
  static_assert(kFewWords <= 3 * kWarp, "three of each lane");
  const u32 mine = key_at(at), best = warp_max(larger(key_at(lane), larger(key_at(lane + kWarp), key_at(lane + 2 * kWarp))));
  const Status status = status_of<T>(tail, W(Word<W>::pack(best, 0)), k);
  // Where there is no word, a logit that takes the longest way.
  float logit = at < n || lane == kLast ? number_of<T>(lane == kLast ? best : mine) : softcap;
  if (softcap > 0) logit = law::capped(logit, softcap, tail.softcap_reciprocal);
  const law::Masses mass = mass_beside(logit, as_float(shuffle(as_bits(logit), kLast)), tail.scale);
  if (lane < kLast) tail.few.weighed[at] = (u64)mass.high << 32 | (u32)mass.low;
  return status;
}

// Tells of n candidates the order, by rank and by id, and writes the best `selected`: for the warps that
// do not weigh. Three counts share a word: two rounds are enough for 78 candidates.
template <class W, class B>
DEVICE void order_few(u32 n, u32 selected) {
  constexpr u32 kItems = 3, kField = 7, kAtOnce = 3, kWarps = B::kWarps - kWeighing;
  static_assert(kItems * kWarp < 1u << kField && kField * kAtOnce <= 32, "a count must fit its field");
  static_assert(kFewWords <= kItems * kWarp, "all fit");
  Tail<W>& tail = block_tail<B>();
  const W* words = the_block<B>().candidates;
  const u32 lane = thread_index() % kWarp, warp = thread_index() / kWarp - kWeighing;
  W all[kItems];
#pragma unroll
  for (u32 j = 0; j < kItems; j++) all[j] = j * kWarp + lane < n ? words[j * kWarp + lane] : 0;  // and 0 is the last in both orders
#pragma unroll 1
  for (u32 first = warp; first < n; first += kAtOnce * kWarps) {
    u32 better = 0, smaller_ids = 0;
#pragma unroll
    for (u32 i = 0; i < kAtOnce; i++) {
      const W one = words[first + i * kWarps];  // past the last: any word, and not written
      u32 at_most = 0, behind = 0;
#pragma unroll
      for (u32 j = 0; j < kItems; j++) {
        at_most = count_at_least(at_most, one, all[j]);
        behind = count_at_least(behind, Word<W>::index(all[j]), Word<W>::index(one));
      }
      better |= (kItems - at_most) << kField * i;
      smaller_ids |= (kItems - behind) << kField * i;
    }
    better = warp_sum(better);
    smaller_ids = warp_sum(smaller_ids);
    const u32 field = kField * smaller(lane, kAtOnce - 1), mine = first + lane * kWarps;
    const u32 rank = better >> field & ((1u << kField) - 1), place = smaller_ids >> field & ((1u << kField) - 1);
    if (lane < kAtOnce && mine < n) {
      tail.few.by_id[place] = mine | rank << 8;
      if (rank < selected) tail.few.by_rank[rank] = mine, tail.sorted[rank] = words[mine];
    }
  }
}

// The sum of what the lanes before this one have: for one warp while the others wait, so that three shuffles at once take
// little longer than one.
DEVICE law::Masses masses_before(const law::Masses& own) {
  const u32 lane = thread_index() % kWarp;
  law::Masses through = own;
  const auto up = [&](u32 lanes) {
    const law::Masses from = {shuffle_up(through.high, lanes), (int)shuffle_up((u32)through.low, lanes)};
    return lane >= lanes ? from : law::Masses{};
  };
#pragma unroll
  for (u32 d = 1; d < kWarp / 2; d *= 4) {
    const law::Masses one = up(d), two = up(2 * d), three = up(3 * d);
    through = (through + one) + (two + three);
  }
  return through + up(kWarp / 2) - own;
}

// Draws from k tokens, the best of n candidates that are ordered and weighed: for one warp. Of what is kept,
// tail.kept and tail.total tell, behind a barrier.
template <bool kOne, class T, class W, class B>
DEVICE void draw_few(const SampleArguments& a, const Drawing& drawing, u32 number, u32 n, u32 k) {
  Tail<W>& tail = block_tail<B>();
  const FewWords& few = tail.few;
  const W* words = the_block<B>().candidates;
  const u32 lane = thread_index() % kWarp;
  constexpr u32 kEach = kFewTokens / kWarp, kEachWord = kWeighing;
  const u64 least = tail.least, share = tail.share, random = tail.numbers[0];

  u32 place[kEach], word[kEachWord], id[kEachWord];
#pragma unroll
  for (u32 i = 0; i < kEach; i++) place[i] = smaller(few.by_rank[kEach * lane + i], kFewWords);
#pragma unroll
  for (u32 i = 0; i < kEachWord; i++) word[i] = few.by_id[kEachWord * lane + i];
  law::Masses mass[kEach], by_id[kEachWord], own;
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    const u64 parts = few.weighed[place[i]];
    if (kEach * lane + i < k) mass[i] = {(u32)(parts >> 32), (int)parts};
  }
#pragma unroll
  for (u32 i = 0; i < kEachWord; i++) {
    if (kEachWord * lane + i >= n) word[i] = kAllLanes;
    const u32 at = smaller(word[i] & 0xff, kFewWords);
    const u64 parts = few.weighed[at];
    by_id[i] = {(u32)(parts >> 32), (int)parts};
    id[i] = Word<W>::index(words[at]);
  }

  // How many are kept: by min-p, and by top-p.
  bool keeps[kEach];
  u32 kept = 0;
#pragma unroll
  for (u32 i = 0; i < kEach; i++) {
    keeps[i] = kEach * lane + i < k && mass[i].sum() >= least;
    if (keeps[i] | drawing.min_p_last) own = own + mass[i];
  }
  if (share) {
    const u64 enough = law::ceil_share(share, warp_sum(own).sum());
    law::Masses before = masses_before(own);
#pragma unroll
    for (u32 i = 0; i < kEach; i++) {
      keeps[i] = keeps[i] && before.sum() < enough;
      before = before + mass[i];
    }
  }
#pragma unroll
  for (u32 i = 0; i < kEach; i++) kept += population(ballot(keeps[i]));

  // Where the tokens begin among the kept masses, and where the last ends. Those that are not kept have the mass 0.
  own = {};
#pragma unroll
  for (u32 i = 0; i < kEachWord; i++) {
    if (word[i] >> 8 >= kept) by_id[i] = {};
    own = own + by_id[i];
  }
  u64 total = warp_sum(own).sum(), begin[kEachWord + 1];
  law::Masses before = masses_before(own);
#pragma unroll
  for (u32 i = 0; i < kEachWord; i++) {
    begin[i] = before.sum();
    before = before + by_id[i];
  }
  begin[kEachWord] = before.sum();
  if (lane == 0) tail.kept = kept, tail.total = total;
  u64 target = law::target(random, total);
#pragma unroll 1
  for (u32 draw = 0;;) {
    const bool hit = begin[0] <= target && target < begin[kEachWord];
    u32 own_place = 0, chosen = word[0], token = id[0];
    u64 gone = begin[1] - begin[0];
#pragma unroll
    for (u32 i = 1; i < kEachWord; i++) {
      if (begin[i] <= target) own_place = i, chosen = word[i], token = id[i], gone = begin[i + 1] - begin[i];
    }
    if (hit) {
      drawing.write(draw, token);
      tail.rank = chosen >> 8;
    }
    if (kOne || ++draw == drawing.draws) break;
    if (!drawing.replacement) {
      // What comes behind the token moves up.
      const u32 from = lowest_bit(ballot(hit)), last = from * kEachWord + shuffle(own_place, from);
      gone = shuffle_wide(gone, from);
#pragma unroll
      for (u32 i = 0; i <= kEachWord; i++) {
        if (kEachWord * lane + i > last) begin[i] -= gone;
      }
      total -= gone;
      if (total == 0) {
        if (lane == 0) tail.drawn = draw;
        return end_row(a, number, draw, kExhausted, kWarp);
      }
    }
    target = law::target(tail.number_of_draw(a, number, draw), total);
  }
  if (lane == 0 && drawing.status) *drawing.status = kDone;
}
// The same for any number of draws. Apart, because most rows have one.
template <class T, class W, class B>
DEVICE_APART void draw_few_again(const SampleArguments& a, Drawing drawing, u32 number, u32 n, u32 k) {
  draw_few<false, T, W, B>(a, drawing, number, n, k);
}

// Whether what was found is so few that it is drawn from without being sorted.
template <class W, class B>
DEVICE bool few_tokens(Found found) {
  const Tail<W>& tail = block_tail<B>();
  return found.candidates <= kFewWords && found.wanted <= kFewTokens && tail.left > 0 && !tail.steps;
}

// Writes the logprob of the one token of a row, by the logits as they came: for one thread, behind a barrier.
template <class T, class W, class B>
DEVICE void write_raw_logprob(const SampleArguments& a, u32 number) {
  const Tail<W>& tail = block_tail<B>();
  a.logprobs[number] = tail.logprobs.raw(number_of<T>(Word<W>::key(tail.sorted[tail.rank])));
  if (a.ranks) a.ranks[number] = tail.rank + 1;
}

// Draws the tokens of a row from n candidates, the best of it: for all threads.
template <class T, class W, class B, class S>
DEVICE void draw_from_few(const SampleArguments& a, u32 number, u32 n, const S& stamps) {
  Tail<W>& tail = block_tail<B>();
  const u32 selected = tail.selected, k = tail.left, warp = thread_index() / kWarp;
  const bool others = warp > 0;
  Status status = kDone;
  release_kernel_behind();
  if (warp < kWeighing) {
    status = weigh_few<T, W, B>(n, k, tail.softcap);
  } else {
    order_few<W, B>(n, selected);
  }
  // What the warp that draws is told is known before the barrier.
  const Drawing drawing = tail.drawing;
  const bool plain = drawing.plain & (others | (status == kDone));
  block_barrier();
  stamps.set(5);
  if (plain) {
    if (!others) draw_few<true, T, W, B>(a, drawing, number, n, k);
    return stamps.set(7);
  }
  status = status_of<T>(tail, tail.sorted[0], k);
  if (status != kDone) return end_without_tokens<B>(a, number, status);
  tell_raw_beside<T, W, B>(a, number, selected, [&] { draw_few_again<T, W, B>(a, drawing, number, n, k); });
  stamps.set(7);
  if (!answers_more(a)) return;
  block_barrier();
  if (drawing.draws == 1 && wants_raw(a) && !a.kept) {
    if (a.logprobs && thread_index() == 0) write_raw_logprob<T, W, B>(a, number);
  } else {
    answer_more<T, W, B>(a, number, selected);
  }
  stamps.set(7);
}
