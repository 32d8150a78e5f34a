import Base
import EventLog
import RecordFormat
import Synchronization

/// Pages that were read lately, decoded once for all who come by: most readers follow each other a little behind the end.
/// Sendable because its table is behind a lock.
final class PageCache: Sendable {
    /// Decoded bytes kept; the oldest pages go first.
    static let limit = 64 << 20

    /// What a read from `start` gave: everything up to the batch's last offset.
    private struct Page {
        let start: Int64
        let batch: RecordBatch
        var end: Int64 { batch.header.lastOffset + 1 }
        var cost: Int { batch.payload.count + batch.records.count * MemoryLayout<RecordView>.stride + 256 }
    }

    private struct State {
        /// In order of their starts, none over another.
        var pages: [TopicPartition: [Page]] = [:]
        var order: [(partition: TopicPartition, start: Int64)] = []
        var first = 0
        var size = 0
    }

    private let state = Mutex(State())

    func batch(_ partition: TopicPartition, holding offset: Int64) -> RecordBatch? {
        state.withLock { state in
            guard let pages = state.pages[partition] else { return nil }
            let index = pages.sortedIndex(after: { $0.end <= offset })
            guard index < pages.count, pages[index].start <= offset else { return nil }
            return pages[index].batch
        }
    }

    func insert(_ batch: RecordBatch, _ partition: TopicPartition, from start: Int64) {
        let page = Page(start: start, batch: batch)
        state.withLock { state in
            var pages = state.pages[partition] ?? []
            let index = pages.sortedIndex(after: { $0.end <= start })
            guard index == pages.count || pages[index].start >= page.end else { return }
            pages.insert(page, at: index)
            state.pages[partition] = pages
            state.order.append((partition, start))
            state.size += page.cost
            while state.size > PageCache.limit, state.first < state.order.count {
                let oldest = state.order[state.first]
                state.first += 1
                guard let index = state.pages[oldest.partition]?.firstIndex(where: { $0.start == oldest.start }) else {
                    continue
                }
                state.size -= state.pages[oldest.partition]?.remove(at: index).cost ?? 0
            }
            if state.first > 1024 {
                state.order.removeFirst(state.first)
                state.first = 0
            }
        }
    }
}
