import Base
import EventLog
import RecordFormat

/// A topic that a fold writes, as another fold reads it: how far the writer is stands in a topic of its own.
package struct Upstream: Sendable, Equatable {
    /// Where the writer says how far it is, in the partition of each of its tasks.
    package let progress: String
    /// Partitions from this one on are written by nobody.
    package let tasks: Int

    package init(progress: String, tasks: Int) {
        self.progress = progress
        self.tasks = tasks
    }
}

/// What a fold says of what it has emitted: everything up to a moment stands in its topics below these offsets. It names
/// offsets and not its own place in the log, so it may be said at any time, more than once, and read at any time.
struct FoldProgress: Equatable {
    let through: Instant
    /// Nothing will come any more.
    let isFinished: Bool
    let ends: [String: Int64]

    /// - Parameters:
    ///   - label: of the task that says it.
    ///   - emitted: events that it emitted so far.
    func event(label: String, emitted: Int64) -> NewEvent {
        let state = isFinished ? "finished" : "active"
        return NewEvent(
            id: "progress:\(label):\(through.milliseconds):\(state):\(emitted)", source: StageContext.source(label),
            type: EventType.progress, time: through,
            data: JSON.object([
                "through": .string(through.description), "state": .string(state),
                "ends": .object(ends.mapValues { .int($0) }),
            ]).canonical)
    }
}

/// What the writer of a derived input has said and has not come true for its reader yet.
struct UpstreamCursor {
    struct Statement {
        let through: Instant
        let isFinished: Bool
        /// The input's events below it.
        let end: Int64
        /// The statement's own place.
        let offset: Int64
    }

    let partition: TopicPartition
    private let topic: JSONKey
    /// First statement that has not come true.
    private(set) var next: Int64
    /// Read so far.
    private var read: Int64 = 0
    private var waiting: [Statement] = []
    private var first = 0

    static let fetchBytes = 64 << 10

    init(_ upstream: Upstream, of input: TopicPartition, next: Int64 = 0) {
        partition = TopicPartition(upstream.progress, input.partition)
        topic = JSONKey(input.topic)
        self.next = next
    }

    /// Statements that are kept although they were believed, so that removing them costs little.
    private static let believed = 1024
    /// Pages read at a time: what was said of events that are far ahead can wait.
    private static let pages = 64

    /// Reads on until something is known that was said of more than an offset, or nothing more is there.
    mutating func fetch(
        _ log: any EventLog, through offset: Int64, _ document: JSONDocument
    ) throws(EventLogError) {
        guard log.partitions(of: partition.topic) > partition.partition else { return }
        // What was believed goes, also where something always waits.
        if first > UpstreamCursor.believed || first == waiting.count {
            waiting.removeFirst(first)
            first = 0
        }
        for _ in 0..<UpstreamCursor.pages {
            if first < waiting.count, let last = waiting.last, last.end > offset { return }
            guard try fetchPage(log, document) else { return }
        }
    }

    /// False when nothing more is there.
    private mutating func fetchPage(_ log: any EventLog, _ document: JSONDocument) throws(EventLogError) -> Bool {
        let from = max(read, next)
        let batches: [RecordBatch]
        do {
            batches = try log.read(partition, from: from, maxBytes: UpstreamCursor.fetchBytes)
        } catch {
            // Whatever was said there is said again, further on, of more.
            guard error.code == "rot" || error.code == "trimmed" else { throw error }
            let range = try log.offsets(partition)
            read = max(from + 1, range.lowerBound)
            return read < range.upperBound
        }
        guard let last = batches.last else { return false }
        for batch in batches {
            for index in batch.records.indices where batch.records[index].offset >= from {
                let event = StoredEvent(batch: batch, index: index)
                guard event.withData({ raw in (try? document.parse(raw)) != nil }) == true,
                    let through = document.member(0, "through").flatMap({ document.string($0) }).flatMap({ Instant($0) }
                    )
                else { continue }
                let end = document.member(0, "ends").flatMap { document.member($0, topic) }.flatMap { document.int($0) }
                waiting.append(
                    Statement(
                        through: through,
                        isFinished: document.member(0, "state").flatMap { document.string($0) } == "finished",
                        end: end ?? 0, offset: event.offset))
            }
        }
        read = last.header.lastOffset + 1
        return true
    }

    /// The next statement, if it is true for who has read the input up to an offset.
    mutating func take(readThrough offset: Int64) -> Statement? {
        guard first < waiting.count, waiting[first].end <= offset else { return nil }
        defer { first += 1 }
        next = waiting[first].offset + 1
        return waiting[first]
    }
}
