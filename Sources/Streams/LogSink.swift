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
    /// Where the fold says each topic goes on: if something else wrote there, nothing is appended at all.
    private var firsts: [TopicPartition: Int64] = [:]
    private var lastTopic = ""

    package init(log: any EventLog, principal: String) {
        pipeline = AppendPipeline(log: log)
        self.principal = principal
    }

    package func take(_ event: DerivedEvent) throws {
        pending.append((event.topic, event.partition, event.event))
        offsets.append(event.offset)
        if lastTopic != event.topic {
            // Few topics follow one another, and each is looked up once in a row.
            lastTopic = event.topic
            let place = TopicPartition(event.topic, event.partition)
            if firsts[place] == nil { firsts[place] = event.offset }
        }
        if pending.count >= LogSink.batchEvents { try send() }
    }

    package func say(_ progress: DerivedEvent) throws {
        pending.append((progress.topic, progress.partition, progress.event))
        offsets.append(LogSink.anywhere)
    }

    /// It may stand wherever there is room.
    private static let anywhere: Int64 = -1

    package func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) throws {}

    private func send() throws {
        guard !pending.isEmpty else { return }
        let append = LogAppend(principal: principal, events: pending, expected: firsts)
        let expected = offsets
        pending = []
        pending.reserveCapacity(LogSink.batchEvents)
        offsets = []
        firsts.removeAll(keepingCapacity: true)
        lastTopic = ""
        try named {
            try pipeline.send(append) { receipt in
                for index in receipt.events.indices
                where expected[index] != LogSink.anywhere && receipt.events[index].position.offset != expected[index] {
                    return LogSink.foreignWriter(
                        "\(receipt.events[index].position) and not at offset \(expected[index])")
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
