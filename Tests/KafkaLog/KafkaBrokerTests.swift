import Base
import EventLog
import Foundation
import KafkaLog
import RecordFormat
import Testing

private func event(_ id: String, key: String? = nil, time: Int64 = 1000) -> NewEvent {
    NewEvent(
        id: id, source: "test", type: "t", time: Instant(milliseconds: time), key: key.map { [UInt8]($0.utf8) },
        data: [UInt8](id.utf8))
}

private func ids(_ log: any EventLog, _ partition: TopicPartition) throws -> [String] {
    var result: [String] = []
    try log.forEachEvent(partition) { event in
        result.append(event.id)
        return true
    }
    return result
}
extension HeavyTests {
    /// What only a log on Kafka does, against a real broker.
    @Suite(.enabled(if: KafkaBroker.executable != nil, "needs the PyPI package noida-db in .cache/venv"), .serialized)
    struct KafkaBrokerTests {
        private let out = TopicPartition("out", 0)
        private let changes = TopicPartition("changes", 0)
        private let input = TopicPartition("in", 0)

        private func open(_ broker: KafkaBroker, topics: [(String, Int)] = [("in", 1), ("out", 1), ("changes", 1)])
            throws
            -> KafkaLog
        {
            let log = try KafkaLog.open(broker.configuration)
            for (name, partitions) in topics { try log.declare(TopicLayout(name: name, partitions: partitions)) }
            return log
        }

        @Test func outputsChangelogAndConsumedOffsetsAreOne() throws {
            let broker = try KafkaBroker()
            let log = try open(broker)
            defer { log.close() }
            _ = try log.append(LogAppend(principal: "p", events: (0..<10).map { ("in", 0, event("i\($0)")) }))
            let writer = try log.transactionalWriter(named: "fold")
            func step(_ number: Int, check: ([Int64]) throws(EventLogError) -> Void = { _ in }) throws {
                try writer.add(event("o\(number)"), to: out)
                try writer.add(event("c\(number)"), to: changes)
                try writer.commit(group: "g", consumed: [input: Int64(number) + 1], check: check)
            }
            try step(0)
            #expect(try ids(log, out) == ["o0"] && ids(log, changes) == ["c0"])
            #expect(try log.committed(group: "g")[input] == 1)
            // Refused before it counts: nothing of it is there.
            let refusal = EventLogError("test", "no")
            #expect(errorCode { try step(1, check: { _ throws(EventLogError) in throw refusal }) } == "test")
            try writer.add(event("dropped"), to: out)
            try writer.abort()
            #expect(try ids(log, out) == ["o0"] && log.committed(group: "g")[input] == 1)
            try step(2)
            #expect(try ids(log, out) == ["o0", "o2"] && ids(log, changes) == ["c0", "c2"])
            #expect(try log.committed(group: "g")[input] == 3)
            #expect(log.lag.first { $0.partition == input }?.records == 8)
            try writer.commit(group: "g", consumed: [input: 10], check: { _ in })
            // Once somebody has looked, the marker at the end is known to be none of the records.
            #expect(try ids(log, input).count == 10)
            #expect(log.lag.first { $0.partition == input }?.records == 0)
            writer.close()
            // What somebody else aborted is never read either, and never counted by a second log.
            let second = try KafkaLog.open(broker.configuration, named: "other")
            defer { second.close() }
            try second.declare(TopicLayout(name: "out", partitions: 1))
            #expect(try ids(second, out) == ["o0", "o2"])
        }

        @Test func anEndThatFallsIsNoticed() {
            var table = EndTable()
            table.add(input, 0..<10)
            table.add(out, 0..<5)
            #expect(table.shrunk([input: 10, out: 7]) == nil)
            let found = table.shrunk([out: 5, input: 9])
            #expect(found?.partition == input && found?.end == 10)
        }

        @Test func theLaterOfTwoWritersFencesTheOlder() throws {
            let broker = try KafkaBroker()
            let older = try open(broker)
            defer { older.close() }
            _ = try older.append(LogAppend(principal: "p", events: [("in", 0, event("1"))]))
            let open = try older.transactionalWriter(named: "fold")
            try open.add(event("lost"), to: out)
            let later = try self.open(broker)
            defer { later.close() }
            let fresh = try later.transactionalWriter(named: "fold")
            #expect(
                errorCode { _ = try older.append(LogAppend(principal: "p", events: [("in", 0, event("2"))])) }
                    == "producer-fenced")
            #expect(older.stopped?.code == "producer-fenced")
            #expect(errorCode { try open.commit(group: "g", consumed: [:], check: { _ in }) } == "producer-fenced")
            try fresh.add(event("kept"), to: out)
            try fresh.commit(group: "g", consumed: [input: 1], check: { _ in })
            _ = try later.append(LogAppend(principal: "p", events: [("in", 0, event("3"))]))
            #expect(try ids(later, input) == ["1", "3"] && ids(later, out) == ["kept"])
            open.close()
            fresh.close()
        }

        @Test func driftIsReportedAndNotChanged() throws {
            let broker = try KafkaBroker()
            let log = try open(broker, topics: [("in", 3)])
            defer { log.close() }
            #expect(log.drift.isEmpty)
            // Made as it is declared: another client that reads the brokers' settings finds them so.
            let brief = TopicLayout(name: "brief", partitions: 2, retention: Retention(milliseconds: 7_200_000))
            try log.declare(brief)
            let other = try KafkaLog.open(broker.configuration, named: "other")
            defer { other.close() }
            try other.declare(brief)
            #expect(log.drift.isEmpty && other.drift.isEmpty && other.partitions(of: "brief") == 2)
            try other.declare(
                TopicLayout(name: "in", partitions: 2, retention: Retention(milliseconds: 5_000), isCompacted: true))
            #expect(other.partitions(of: "in") == 3)
            let found = other.drift.map { "\($0.setting) \($0.actual)/\($0.declared)" }
            #expect(found.contains("partitions 3/2"))
            #expect(found.contains("cleanup.policy delete/compact") && found.contains("retention.ms -1/5000"))
            try log.declare(TopicLayout(name: "in", partitions: 3, tombstoneRetention: 1))
            #expect(log.drift.map(\.setting) == ["delete.retention.ms"])
            #expect(
                errorCode { _ = try log.append(LogAppend(principal: "p", events: [("nope", nil, event("1"))])) }
                    == "unknown-topic")
        }

        @Test func acknowledgedEventsOutliveTheBroker() throws {
            let broker = try KafkaBroker()
            let log = try open(broker)
            defer { log.close() }
            var sent: [String] = []
            for round in 0..<3 {
                for number in 0..<20 {
                    let id = "\(round)-\(number)"
                    _ = try log.append(LogAppend(principal: "p", events: [("in", 0, event(id))]))
                    sent.append(id)
                }
                broker.stop()
                try broker.start()
            }
            #expect(try ids(log, input) == sent)
            let again = try KafkaLog.open(broker.configuration, named: "reader")
            defer { again.close() }
            try again.declare(TopicLayout(name: "in", partitions: 1))
            #expect(try ids(again, input) == sent)
        }
    }
}
