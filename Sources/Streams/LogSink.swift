import Base
import EventLog
import RecordFormat

/// Appends emitted events to the log, and checks that each stands where the fold said it would.
package final class LogSink: DerivedSink {
    /// Events of one append.
    static let batchEvents = 1000

    private let pipeline: AppendPipeline
    private let principal: String
    private var pending: [(topic: String, partition: Int?, event: NewEvent)] = []
    private var offsets: [Int64] = []

    package init(log: any EventLog, principal: String) {
        pipeline = AppendPipeline(log: log)
        self.principal = principal
    }

    package func take(_ event: DerivedEvent) throws {
        pending.append((event.topic, 0, event.event))
        offsets.append(event.offset)
        if pending.count >= LogSink.batchEvents { try send() }
    }

    package func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) throws {}

    private func send() throws {
        guard !pending.isEmpty else { return }
        // Where the fold says each topic goes on: if something else wrote there, nothing is appended at all.
        var firsts: [TopicPartition: Int64] = [:]
        for (event, offset) in zip(pending, offsets) where firsts[TopicPartition(event.topic, 0)] == nil {
            firsts[TopicPartition(event.topic, 0)] = offset
        }
        let append = LogAppend(principal: principal, events: pending, expected: firsts)
        let expected = offsets
        pending.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
        try named {
            try pipeline.send(append) { receipt in
                for (event, offset) in zip(receipt.events, expected) where event.position.offset != offset {
                    return LogSink.foreignWriter("\(event.position) and not at offset \(offset)")
                }
                return nil
            }
        }
    }

    static func foreignWriter(_ place: String) -> EventLogError {
        EventLogError(
            "foreign-writer",
            "a derived event stands at \(place): something else writes to that topic, or the topology changed since",
            fault: .world)
    }

    /// A conflict over an offset has only one cause here.
    private func named(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch let error as EventLogError {
            guard let conflict = error.cause as? OffsetConflict else { throw error }
            throw LogSink.foreignWriter(
                "\(conflict.partition)@\(conflict.actual) and not at offset \(conflict.expected)")
        }
    }

    package func flush(_ consumed: () -> [TopicPartition: Int64]) throws {
        try send()
        try named { try pipeline.drain() }
    }
}
