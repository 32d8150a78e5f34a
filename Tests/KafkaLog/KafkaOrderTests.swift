import Base
import EventLog
import Foundation
import KafkaLog
import RecordFormat
import Simulation
import Streams
import Synchronization
import Testing

/// A log of which some reads give little and some give nothing yet: fetches that are slow, fast, and out of step.
private final class UnevenLog: EventLog {
    private let log: any EventLog
    private let random: Mutex<SeededRandom>

    private let isMute: Bool

    /// - Parameter isMute: shows nothing at all.
    init(_ log: any EventLog, seed: UInt64, isMute: Bool = false) {
        self.log = log
        self.isMute = isMute
        random = Mutex(SeededRandom(seed: seed))
    }

    func read(_ partition: TopicPartition, from offset: Int64, maxBytes: Int) throws(EventLogError) -> [RecordBatch] {
        let luck = random.withLock { Int.random(in: 0..<4, using: &$0) }
        switch luck {
        case _ where isMute: return []
        case 0: return []
        case 1: return try log.read(partition, from: offset, maxBytes: 1)
        default: return try log.read(partition, from: offset, maxBytes: maxBytes)
        }
    }

    func isReadable(_ partition: TopicPartition, from offset: Int64) -> Bool {
        offset >= (try? log.offsets(partition).upperBound) ?? 0
    }

    var capabilities: LogCapabilities { log.capabilities }
    var durability: Durability { log.durability }
    func declare(_ layout: TopicLayout) throws(EventLogError) { try log.declare(layout) }
    var topics: [TopicLayout] { log.topics }
    func append(_ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void) {
        log.append(append, completion: completion)
    }
    func append(_ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void) {
        log.append(append, completion: completion)
    }
    func registerProducer(named name: String?) throws(EventLogError) -> ProducerIdentity {
        try log.registerProducer(named: name)
    }
    func endOfDoubt(_ partition: TopicPartition, _ offset: Int64) -> Int64? { log.endOfDoubt(partition, offset) }
    func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64> { try log.offsets(partition) }
    func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64 {
        try log.offset(partition, atOrAfter: time)
    }
    func trim(_ partition: TopicPartition, before offset: Int64) throws(EventLogError) {
        try log.trim(partition, before: offset)
    }
    func pin(_ pin: Pin) throws(EventLogError) { try log.pin(pin) }
    func unpin(_ name: String) throws(EventLogError) { try log.unpin(name) }
    var pins: [Pin] { log.pins }
    func waitForChange(after version: UInt64, seconds: Double) -> UInt64 {
        log.waitForChange(after: version, seconds: seconds)
    }
    func changes() -> AsyncStream<UInt64> { log.changes() }
    func listen(_ body: @escaping @Sendable () -> Void) -> LogListening { log.listen(body) }
    func follow(_ positions: [TopicPartition: Int64]) throws(EventLogError) -> LogFollower { try log.follow(positions) }
    func transactionalWriter(named name: String) throws(EventLogError) -> any TransactionalWriter {
        try log.transactionalWriter(named: name)
    }
    var eventCount: UInt64 { log.eventCount }
    var stopped: EventLogError? { log.stopped }
    func close() { log.close() }
}

/// What a log cannot show yet is not taken for nothing.
@Suite struct UnevenLogTests {
    @Test func readersWaitForWhatIsThere() throws {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 3), options: options)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        let place = TopicPartition("t", 0)
        for number in 0..<200 {
            let event = NewEvent(
                id: "\(number)", source: "s", type: "t", time: Instant(milliseconds: Int64(number) + 1),
                data: [UInt8]("{}".utf8))
            log.append(LogAppend(principal: "p", events: [("t", 0, event)])) { _ in }
            log.commitReady()
        }
        for seed in 0..<20 {
            var ids: [String] = []
            try UnevenLog(log, seed: UInt64(seed)).forEachEvent(place) { event in
                ids.append(event.id)
                return true
            }
            #expect(ids == (0..<200).map { "\($0)" }, "seed \(seed)")
            // The sink of a replay asks the log where events are: it finds each, too.
            let sink = ComparingSink(log: UnevenLog(log, seed: UInt64(seed))) { _ in }
            for number in 0..<200 {
                let event = NewEvent(
                    id: "\(number)", source: "s", type: "t", time: Instant(milliseconds: Int64(number) + 1),
                    data: [UInt8]("{}".utf8))
                try sink.take(DerivedEvent(topic: "t", partition: 0, offset: Int64(number), event: event))
            }
            #expect(sink.compared == 200 && sink.first == nil, "\(String(describing: sink.first))")
        }
        let mute = UnevenLog(log, seed: 1, isMute: true)
        #expect(errorCode { try mute.forEachEvent(place) { _ in true } } == "not-readable-yet")
        let event = NewEvent(id: "0", source: "s", type: "t", time: Instant(milliseconds: 1), data: [])
        let sink = ComparingSink(log: mute) { _ in }
        #expect(
            errorCode { try sink.take(DerivedEvent(topic: "t", partition: 0, offset: 0, event: event)) }
                == "not-readable-yet")
    }
}

extension HeavyTests {
    /// The order of a fold comes from the events: two inputs of four partitions each, written by racing producers and read at
    /// whatever pace, give the same outputs and the same state digests from the embedded log and from a real broker.
    @Suite(.enabled(if: KafkaBroker.executable != nil, "needs the PyPI package noida-db in .cache/venv"), .serialized)
    struct KafkaOrderTests {
        private static let partitions = 4
        private static let end: Int64 = 2_000_000

        private final class Collector: DerivedSink {
            var lines: [String] = []
            func take(_ event: DerivedEvent) {
                let key = String(decoding: event.event.key ?? [], as: UTF8.self)
                let data = String(decoding: event.event.data ?? [], as: UTF8.self)
                lines.append("\(event.topic) \(key) \(event.event.time) \(data)")
            }
            func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
            func flush(_ consumed: () -> [TopicPartition: Int64]) {}
        }

        private static func build() -> any Stage {
            let builder = StreamBuilder("order")
            let orders = builder.stream("orders", JSON.self).keyed { $0.value["k"]?.string }
            let prices = builder.stream("prices", JSON.self).keyed { $0.value["k"]?.string }
            orders.join(prices.table(), keepsUnmatched: true).to("joined", type: "t")
            orders.stream.merge(prices.stream).keyedByEvent()
                .windowed(by: .sliding(milliseconds: 500))
                .measure(.count("n"), .of(.first, "first") { $0["n"]?.double }, .of(.sum, "sum") { $0["n"]?.double })
                .to("windows", type: "t")
            orders.join(prices, before: 30, after: 30, keepsUnmatched: true).to("pairs", type: "t")
            return builder.build()
        }

        /// Appends of one partition, in its order, with progress now and then and at the end.
        private static func appends(
            _ topic: String, _ partition: Int, _ random: inout SeededRandom
        ) -> [[(topic: String, partition: Int?, event: NewEvent)]] {
            var time: Int64 = 1_000_000
            var number = 0
            var list: [[(topic: String, partition: Int?, event: NewEvent)]] = []
            func progress(_ through: Int64, _ state: String) -> (topic: String, partition: Int?, event: NewEvent) {
                let data = "{\"through\":\"\(Instant(milliseconds: through))\",\"state\":\"\(state)\"}"
                return (
                    topic, partition,
                    NewEvent(
                        id: "p\(topic)\(partition)-\(list.count)\(state)", source: "s", type: EventType.progress,
                        time: Instant(milliseconds: through), data: [UInt8](data.utf8))
                )
            }
            for _ in 0..<6 {
                var events: [(topic: String, partition: Int?, event: NewEvent)] = []
                for _ in 0..<Int.random(in: 1...40, using: &random) {
                    // Many at one time: their order is rank, partition and offset.
                    time += Int64.random(in: 0...3, using: &random) * 5
                    number += 1
                    let key = ["a", "b", "c"][Int.random(in: 0..<3, using: &random)]
                    events.append(
                        (
                            topic, partition,
                            NewEvent(
                                id: "\(topic)\(partition)-\(number)", source: "s", type: "t",
                                time: Instant(milliseconds: time), key: [UInt8](key.utf8),
                                data: [UInt8]("{\"k\":\"\(key)\",\"n\":\(partition * 1000 + number)}".utf8))
                        ))
                }
                events.append(progress(time - 1, "active"))
                list.append(events)
            }
            list.append([progress(end, "finished")])
            return list
        }

        private static func fold(
            _ log: any EventLog, _ seed: UInt64, expecting count: Int64
        ) throws -> (lines: [String], digests: [String]) {
            let collector = Collector()
            let runner = try TopologyRunner(
                topology: Topology(name: "order", stages: [build()], answers: [], attachments: []), derived: [],
                log: UnevenLog(log, seed: seed), database: try StateDatabase(path: nil), sink: collector)
            let limit = Date(timeIntervalSinceNow: 60)
            while runner.folded < count || !runner.isDrained, Date() < limit {
                if try !runner.runSlice() { Thread.sleep(forTimeInterval: 0.001) }
            }
            // The last timers fire at the end.
            for _ in 0..<100 { _ = try runner.runSlice() }
            #expect(runner.folded == count && runner.late == 0, "\(runner.folded) of \(count), \(runner.late) late")
            return (collector.lines, runner.stateDigests().map { "\($0.name) \($0.digest.hex)" })
        }

        @Test(.timeLimit(.minutes(3)), arguments: [UInt64(1), 2, 3]) func bothLogsGiveOneOrder(seed: UInt64) throws {
            var random = SeededRandom(seed: seed)
            var lanes: [[[(topic: String, partition: Int?, event: NewEvent)]]] = []
            for topic in ["orders", "prices"] {
                for partition in 0..<Self.partitions { lanes.append(Self.appends(topic, partition, &random)) }
            }
            let count = Int64(lanes.joined().joined().count { $0.event.type != EventType.progress })
            let scratch = try ScratchDirectory()
            let embedded = try EmbeddedLog.open(scratch.path + "/log")
            let broker = try KafkaBroker()
            let kafka = try KafkaLog.open(broker.configuration)
            let logs: [any EventLog] = [embedded, kafka]
            var found: [(lines: [String], digests: [String])] = []
            for (number, log) in logs.enumerated() {
                for topic in ["orders", "prices"] {
                    try log.declare(TopicLayout(name: topic, partitions: Self.partitions))
                }
                let producers = lanes.map { lane in
                    BlockingThread(name: "producer") {
                        for events in lane { _ = try? log.append(LogAppend(principal: "p", events: events)) }
                    }
                }
                // It folds while they write.
                found.append(try Self.fold(log, seed * 10 + UInt64(number), expecting: count))
                for producer in producers { producer.join() }
                // And once more when everything is there.
                found.append(try Self.fold(log, seed * 100 + UInt64(number), expecting: count))
                log.close()
            }
            #expect(found[0].lines.count > Int(count) * 2)
            for other in found.dropFirst() {
                #expect(other.lines == found[0].lines && other.digests == found[0].digests)
            }
        }
    }
}
