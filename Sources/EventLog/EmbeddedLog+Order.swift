import Base
import RecordFormat

/// The order in which events of all topics came, by their global sequence.
package struct LogOrder: Sendable {
    /// Where each of them stands.
    package var places: [(sequence: UInt64, partition: TopicPartition, offset: Int64)]
    /// Sequences among them of which damage took the place: every event has one, so what is not there is lost.
    package var lost: [Range<UInt64>] = []
    /// Events the log has taken; sequences lie below it.
    package var events: UInt64
    /// The first sequence of which the place is kept: retention takes the oldest.
    package var start: UInt64

    /// - Parameter from: the first sequence asked for.
    init(
        _ places: [(sequence: UInt64, partition: TopicPartition, offset: Int64)], from: UInt64, limit: Int,
        start: UInt64, events: UInt64
    ) {
        (self.places, self.start, self.events) = (places, start, events)
        var next = max(from, start)
        for place in places {
            if place.sequence > next { lost.append(next..<place.sequence) }
            next = place.sequence + 1
        }
        if places.count < limit, next < events { lost.append(next..<events) }
    }
}

extension EmbeddedLog {
    /// Where the events of all topics stand in the order in which they came, from a sequence on. What was trimmed or compacted
    /// still has its place.
    /// - Parameter limit: events at most.
    package func order(from sequence: UInt64, limit: Int) throws(EventLogError) -> LogOrder {
        // Nothing moves meanwhile.
        try upkeep.withLock { _ throws(EventLogError) in
            let start = maintenance.withLock { $0.manifest.chainStart }
            let durable = shared.withLock { $0.durableSequence }
            return LogOrder(
                try places(from: sequence, limit: limit, below: durable), from: sequence, limit: limit, start: start,
                events: durable)
        }
    }

    /// The same of some partitions, as runs of events that were appended one behind the other.
    /// - Parameter body: gets the partition's number in the list, the offset and the sequence of the run's first event, and how
    ///   many there are.
    package func eachRun(
        of partitions: [TopicPartition],
        _ body: (_ number: Int, _ offset: Int64, _ sequence: UInt64, _ count: Int) -> Void
    ) throws(EventLogError) {
        let numbers = Dictionary(uniqueKeysWithValues: partitions.enumerated().map { ($1, $0) })
        try upkeep.withLock { _ throws(EventLogError) in
            let durable = shared.withLock { $0.durableSequence }
            var wanted: [(number: Int, next: Int64)] = []
            try eachFrame(from: 0, below: durable) { frame in
                wanted.removeAll(keepingCapacity: true)
                for batch in frame.batches { wanted.append((numbers[batch.partition] ?? -1, batch.baseOffset)) }
                guard wanted.contains(where: { $0.number >= 0 }) else { return true }
                var sequence = frame.firstSequence
                for run in frame.interleave {
                    let (number, offset) = wanted[run.batch]
                    if number >= 0 { body(number, offset, sequence, run.count) }
                    wanted[run.batch].next += Int64(run.count)
                    sequence += UInt64(run.count)
                }
                return true
            }
        }
    }

    private func places(
        from sequence: UInt64, limit: Int, below durable: UInt64
    ) throws(EventLogError) -> [(sequence: UInt64, partition: TopicPartition, offset: Int64)] {
        var list: [(sequence: UInt64, partition: TopicPartition, offset: Int64)] = []
        try eachFrame(from: sequence, below: durable) { frame in
            frame.place(from: sequence, limit: limit, in: &list)
            return list.count < limit
        }
        return list
    }

    /// Every frame that holds something from a sequence on, as long as `body` wants more.
    private func eachFrame(
        from sequence: UInt64, below durable: UInt64, _ body: (LogFrame.Description) -> Bool
    ) throws(EventLogError) {
        let chains = maintenance.withLock { $0.manifest }.chains.filter { $0.endSequence > sequence }
        for chain in chains {
            guard let envelopes = try readable(chain) else { continue }
            for envelope in envelopes { guard body(envelope.description) else { return } }
        }
        let segments = shared.withLock { $0.segments }
        for (number, segment) in segments.enumerated() {
            if number + 1 < segments.count, segments[number + 1].firstSequence <= sequence { continue }
            var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
            walker.refusesUnreadable = true
            while let step = try walker.next() {
                switch step {
                case .frame(let frame, _, _):
                    guard frame.firstSequence < durable, body(frame) else { return }
                case .damage(_, let resume): walker.offset = resume?.at ?? segment.end
                }
            }
        }
    }

    /// nil where it is damaged; what only cannot be read now is an error, and no gap.
    private func readable(_ chain: Manifest.Chain) throws(EventLogError) -> [ChainFile.Envelope]? {
        do {
            return try ChainFile.load(volume, chain)
        } catch {
            guard error.code == "rot" || error.code == "no-such-file" else { throw error }
            return nil
        }
    }
}

extension LogFrame.Description {
    /// Adds where its events stand, in the order in which they came.
    fileprivate func place(
        from sequence: UInt64, limit: Int,
        in list: inout [(sequence: UInt64, partition: TopicPartition, offset: Int64)]
    ) {
        guard endSequence > sequence else { return }
        var next = batches.map(\.baseOffset)
        var number = firstSequence
        for run in interleave {
            for _ in 0..<run.count {
                if number >= sequence, list.count < limit {
                    list.append((number, batches[run.batch].partition, next[run.batch]))
                }
                next[run.batch] += 1
                number += 1
            }
        }
    }
}
