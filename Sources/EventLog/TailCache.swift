import Base
import RecordFormat
import Synchronization

/// Batches at the end of partitions, decoded once for all who follow them. Sendable because its table is behind a lock.
final class TailCache: Sendable {
    /// Decoded bytes kept; the oldest batches go first.
    static let limit = 32 << 20

    /// The newest batches of one partition; those before `head` are gone.
    private struct Line {
        var batches: [RecordBatch] = []
        var head = 0

        mutating func dropFirst() {
            guard head < batches.count else { return }
            head += 1
            guard head > 64, head * 2 > batches.count else { return }
            batches.removeFirst(head)
            head = 0
        }
    }

    private struct State {
        var partitions: [TopicPartition: Line] = [:]
        var order: [(partition: TopicPartition, cost: Int)] = []
        var firstInOrder = 0
        var size = 0
    }

    private let state = Mutex(State())

    private static func cost(_ batch: RecordBatch) -> Int {
        batch.payload.count + batch.records.count * MemoryLayout<RecordView>.stride + 256
    }

    /// Batches from the one that holds `offset`, in order and without a gap; nil when that one is not here.
    func batches(_ partition: TopicPartition, from offset: Int64, maxBytes: Int) -> [RecordBatch]? {
        state.withLock { state in
            guard let line = state.partitions[partition], let last = line.batches.last,
                offset <= last.header.lastOffset
            else { return nil }
            let list = line.batches
            var low = list[line.head...].sortedIndex(after: { $0.header.lastOffset < offset })
            guard low < list.count, list[low].header.baseOffset <= offset else { return nil }
            var result: [RecordBatch] = []
            var bytes = 0
            while low < list.count, result.isEmpty || bytes + list[low].header.size <= maxBytes {
                bytes += list[low].header.size
                result.append(list[low])
                low += 1
            }
            return result
        }
    }

    /// Takes batches in that continue what is here; others begin the partition anew.
    func insert(_ batches: [RecordBatch], _ partition: TopicPartition) {
        state.withLock { state in
            for batch in batches {
                let last = state.partitions[partition]?.batches.last?.header.lastOffset
                if let last, batch.header.baseOffset <= last { continue }
                if let last, batch.header.baseOffset != last + 1 { drop(partition, &state) }
                let cost = TailCache.cost(batch)
                state.partitions[partition, default: Line()].batches.append(batch)
                state.order.append((partition, cost))
                state.size += cost
            }
            while state.size > TailCache.limit, state.firstInOrder < state.order.count {
                let (partition, cost) = state.order[state.firstInOrder]
                state.firstInOrder += 1
                state.size -= cost
                // A cost of nothing: it went before with its whole line.
                if cost > 0 { state.partitions[partition]?.dropFirst() }
            }
            if state.firstInOrder > 4096 {
                state.order.removeFirst(state.firstInOrder)
                state.firstInOrder = 0
            }
        }
    }

    private func drop(_ partition: TopicPartition, _ state: inout State) {
        state.partitions[partition] = Line()
        for index in state.firstInOrder..<state.order.count where state.order[index].partition == partition {
            state.size -= state.order[index].cost
            state.order[index].cost = 0
        }
    }

    func clear() { state.withLock { $0 = State() } }
}
