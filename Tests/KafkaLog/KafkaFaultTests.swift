import Base
import CRdKafka
import EventLog
import Foundation
import KafkaLog
import RecordFormat
import Testing

private let a = TopicPartition("a", 0)

private func append(_ numbers: Range<Int>) -> LogAppend {
    LogAppend(
        principal: "p",
        events: numbers.map {
            (
                "a", 0,
                NewEvent(
                    id: "\($0)", source: "test", type: "t", time: Instant(milliseconds: 1000 + Int64($0)),
                    data: [UInt8]("\($0)".utf8))
            )
        })
}

private func values(_ log: any EventLog) throws -> [Int] {
    var result: [Int] = []
    try log.forEachEvent(a) { event in
        result.append(event.data.flatMap { Int(String(decoding: $0, as: UTF8.self)) } ?? -1)
        return true
    }
    return result
}

/// What brokers do wrong, and what a log on them makes of it.
struct BrokerFault: Sendable, CustomStringConvertible {
    let description: String
    let check: @Sendable (MockCluster, KafkaLog) throws -> Void

    init(_ description: String, _ check: @escaping @Sendable (MockCluster, KafkaLog) throws -> Void) {
        self.description = description
        self.check = check
    }
}

private let faults: [BrokerFault] = [
    BrokerFault("a leader that goes down and comes back costs time and no event") { mock, log in
        _ = try log.append(append(0..<10))
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_down(mock.cluster, broker) }
        let reviver = BlockingThread(name: "reviver") {
            Thread.sleep(forTimeInterval: 0.8)
            for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_up(mock.cluster, broker) }
        }
        _ = try log.append(append(10..<20))
        reviver.join()
        #expect(try values(log) == Array(0..<20))
    },
    BrokerFault("a log that is closed under its producers answers every append, once") { mock, log in
        let counts = Monitor((sent: 0, answers: 0, there: 0, codes: Set<String>()))
        let producers = (0..<4).map { producer in
            BlockingThread(name: "producer") {
                for number in 0..<400 {
                    counts.update { $0.sent += 1 }
                    let start = (producer * 400 + number) * 10
                    log.append(append(start..<start + 10)) { result in
                        counts.update { counts in
                            counts.answers += 1
                            switch result {
                            case .success: counts.there += 10
                            case .failure(let error): counts.codes.insert(error.code)
                            }
                        }
                    }
                }
            }
        }
        _ = counts.wait(seconds: 20) { $0.there > 200 ? true : nil }
        log.close()
        for thread in producers { thread.join() }
        _ = counts.wait(seconds: 20) { $0.answers >= $0.sent ? true : nil }
        let (sent, answers, there, codes) = counts.withLock { $0 }
        #expect(sent == 1600 && answers == sent, "\(sent) \(answers)")
        #expect(codes.isSubset(of: ["log-stopped", "outcome-unknown", "closed"]), "\(codes)")
        let again = try KafkaLog.open(mock.configuration())
        defer { again.close() }
        try again.declare(TopicLayout(name: "a", partitions: 1))
        let found = try values(again)
        #expect(Set(found).count == found.count && found.count >= there, "\(found.count) \(there)")
    },
    BrokerFault("partitions that change their leader keep their order") { mock, log in
        for round in 0..<6 {
            rd_kafka_mock_partition_set_leader(mock.cluster, "a", 0, Int32(round % 3) + 1)
            _ = try log.append(append(round * 5..<round * 5 + 5))
        }
        #expect(try values(log) == Array(0..<30))
    },
    BrokerFault("refused and timed-out requests are repeated and leave each event once") { mock, log in
        mock.fail(
            MockCluster.produce,
            [
                RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR__TRANSPORT,
            ])
        _ = try log.append(append(0..<10))
        mock.fail(
            MockCluster.addPartitions,
            [RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE])
        mock.fail(
            MockCluster.endTransaction,
            [RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_NOT_COORDINATOR])
        _ = try log.append(append(10..<20))
        #expect(try values(log) == Array(0..<20))
    },
    BrokerFault("brokers that throttle cost time and no event") { mock, log in
        mock.fail(
            MockCluster.produce,
            [RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED])
        let code = errorCode { _ = try log.append(append(0..<10)) }
        if code != nil {
            // Dropped as a whole, and told so; what is given again stands once.
            #expect(code == "transaction-aborted" && log.stopped == nil, "\(code ?? "")")
            _ = try log.append(append(0..<10))
        }
        #expect(try values(log) == Array(0..<10))
    },
    BrokerFault("a transaction that the brokers drop is done again, or told to who must do so himself") { mock, log in
        _ = try log.append(append(0..<3))
        mock.fail(MockCluster.produce, [RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER])
        _ = try log.append(append(3..<5))
        #expect(try values(log) == Array(0..<5) && log.stopped == nil)
        // A fold has to go back to its checkpoint, so nothing is repeated behind its back.
        let writer = try log.transactionalWriter(named: "fold")
        defer { writer.close() }
        mock.fail(MockCluster.produce, [RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER])
        let event = NewEvent(
            id: "5", source: "test", type: "t", time: Instant(milliseconds: 1), data: [UInt8]("5".utf8))
        do {
            try writer.add(event, to: a)
            try writer.commit(group: "g", consumed: [:], check: { _ in })
            Issue.record("taken")
        } catch let error as EventLogError {
            #expect(error.code == "transaction-aborted" && error.retriable && error.fault == .world, "\(error)")
        }
        #expect(try values(log) == Array(0..<5))
    },
    BrokerFault("who may be refused is told to come back when too much is under way") { mock, log in
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_rtt(mock.cluster, broker, 3000) }
        let codes = Monitor<[String: Int]>([:])
        let large = [UInt8](repeating: 0x20, count: 900_000)
        var given = 0
        while given < 500, codes.withLock({ $0["log-saturated"] }) == nil {
            let event = NewEvent(
                id: "l\(given)", source: "test", type: "t", time: Instant(milliseconds: 1), data: large)
            log.append(LogAppend(principal: "p", events: [("a", 0, event)], refusable: true)) { result in
                if case .failure(let error) = result { codes.withLock { $0[error.code, default: 0] += 1 } }
            }
            given += 1
        }
        #expect(codes.withLock { $0["log-saturated"] } == 1 && given > 10, "\(given)")
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_rtt(mock.cluster, broker, 0) }
    },
    BrokerFault("publishers are told at once that nobody answers, also those that wait for their turn") { mock, log in
        _ = try log.append(append(0..<1))
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_down(mock.cluster, broker) }
        let codes = Monitor<[String]>([])
        let begun = Date()
        var slowest = 0.0
        // The first ones go on their way and wait for what becomes of them; whoever comes later is told.
        while Date().timeIntervalSince(begun) < 12, !codes.withLock({ $0.contains("broker-unavailable") }) {
            let event = NewEvent(
                id: "o\(Date())", source: "test", type: "t", time: Instant(milliseconds: 1), data: [UInt8]("7".utf8))
            log.append(LogAppend(principal: "p", events: [("a", 0, event)], refusable: true)) { result in
                if case .failure(let error) = result { codes.withLock { $0.append(error.code) } }
            }
            slowest = Date().timeIntervalSince(begun)
            Thread.sleep(forTimeInterval: 0.05)
        }
        #expect(codes.withLock { $0.contains("broker-unavailable") } && slowest < 4, "\(slowest) s")
        #expect(log.outage?.retriable == true)
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_up(mock.cluster, broker) }
        let back = Date(timeIntervalSinceNow: 15)
        while log.outage != nil, Date() < back { Thread.sleep(forTimeInterval: 0.05) }
        #expect(log.outage == nil)
        _ = try log.append(append(100..<101))
    },
    BrokerFault("slow brokers and failing fetches slow readers down") { mock, log in
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_rtt(mock.cluster, broker, 150) }
        _ = try log.append(append(0..<10))
        mock.fail(
            MockCluster.fetch, [RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR])
        #expect(try values(log) == Array(0..<10))
    },
    BrokerFault("a fenced producer stops the log by name") { mock, log in
        _ = try log.append(append(0..<5))
        mock.fail(MockCluster.endTransaction, [RD_KAFKA_RESP_ERR_PRODUCER_FENCED])
        #expect(errorCode { _ = try log.append(append(5..<6)) } == "producer-fenced")
        #expect(log.stopped?.code == "producer-fenced" && log.stopped?.retriable == false)
        #expect(errorCode { _ = try log.append(append(6..<7)) } == "producer-fenced")
    },
    BrokerFault("what may not be written is refused by name and stops nothing") { mock, log in
        mock.fail(MockCluster.produce, [RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED])
        let code = errorCode { _ = try log.append(append(0..<5)) }
        #expect(code == "not-authorized", "\(code ?? "taken")")
        #expect(log.stopped == nil)
    },
    BrokerFault("brokers that stay away are named in time, and nothing is taken for done") { mock, log in
        _ = try log.append(append(0..<3))
        for broker in 1...3 as ClosedRange<Int32> { rd_kafka_mock_broker_set_down(mock.cluster, broker) }
        let begun = Date()
        let code = errorCode { _ = try log.append(append(3..<4)) }
        #expect(["broker-unavailable", "transaction-aborted", "outcome-unknown", "kafka-fatal"].contains(code ?? ""))
        #expect(Date().timeIntervalSince(begun) < 120)
    },
]
extension HeavyTests {
    @Suite(.serialized) struct KafkaFaultTests {
        @Test(arguments: faults) func brokersFail(fault: BrokerFault) throws {
            let mock = try MockCluster()
            let log = try KafkaLog.open(mock.configuration())
            defer { log.close() }
            try log.declare(TopicLayout(name: "a", partitions: 1))
            try log.declare(TopicLayout(name: "b", partitions: 3))
            try fault.check(mock, log)
        }

        @Test func anAbsentClusterIsNamed() throws {
            var configuration = KafkaConfiguration(bootstrap: "127.0.0.1:\(try KafkaBroker.freePort())")
            configuration.patience = 1
            let error = #expect(throws: EventLogError.self) { _ = try KafkaLog.open(configuration) }
            #expect(error?.code == "broker-unavailable" && error?.retriable == true)
            #expect(error?.message.contains(configuration.bootstrap) == true)
        }

        @Test(arguments: [
            (
                "security.protocol=sasl_ssl\nsasl.password=hunter2secret\nsasl.mechanism=NOPE-hunter2secret",
                "bad-kafka-setting"
            ),
            ("acks=1", "bad-kafka-setting"), ("hunter2secret", "bad-kafka-setting"),
            ("security.protocol=ssl\nssl.key.password=hunter2secret\nssl.key.pem=hunter2secret", "bad-kafka-setting"),
            ("headrace.replication=hunter2secret", "bad-kafka-setting"),
        ])
        func settingsAreCheckedAndNeverShown(text: String, code: String) throws {
            let scratch = try ScratchDirectory()
            let file = scratch.path + "/kafka.properties"
            try Data(text.utf8).write(to: URL(filePath: file))
            var configuration = KafkaConfiguration(bootstrap: "127.0.0.1:1")
            configuration.patience = 1
            do {
                try configuration.read(file: file)
                _ = try KafkaLog.open(configuration)
                Issue.record("taken")
            } catch {
                #expect(error.code == code)
                #expect(!"\(error)".contains("hunter2secret"))
            }
            #expect(!"\(configuration)".contains("hunter2secret"))
        }

        /// On the mock cluster: noida-db 0.2.3 refuses commits while a group rebalances, and often leaves the second join
        /// of a cooperative rebalance unanswered.
        @Test func membersShareATopicWithoutLossOrDouble() throws {
            let mock = try MockCluster(topics: [("shared", 4)])
            let log = try KafkaLog.open(mock.configuration())
            defer { log.close() }
            try log.declare(TopicLayout(name: "shared", partitions: 4))
            let seen = Monitor<[String: Int]>([:])
            var settings = mock.configuration()
            settings.settings += [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "200")]
            let configuration = settings
            @Sendable func member() throws -> GroupMember {
                try GroupMember(configuration, group: "crew", topics: ["shared"]) { partition, batch in
                    // Slow enough that the partitions move while work is under way.
                    Thread.sleep(forTimeInterval: 0.002)
                    seen.update { seen in
                        for index in batch.records.indices {
                            seen[StoredEvent(batch: batch, index: index).id, default: 0] += 1
                        }
                    }
                }
            }
            func publish(_ numbers: Range<Int>) throws {
                for start in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 100) {
                    _ = try log.append(
                        LogAppend(
                            principal: "p",
                            events: (start..<start + 100).map {
                                (
                                    "shared", nil,
                                    NewEvent(
                                        id: "e\($0)", source: "test", type: "t", time: Instant(milliseconds: 1000),
                                        key: [UInt8]("k\($0)".utf8), data: [1])
                                )
                            }))
                }
            }
            let first = try member()
            #expect(first.waitForAssignment(of: 4, seconds: 30))
            try publish(0..<2000)
            let second = try member()
            try publish(2000..<4000)
            #expect(first.waitForAssignment(of: 2, seconds: 30) && second.waitForAssignment(of: 2, seconds: 30))
            #expect(Set(first.assigned).isDisjoint(with: second.assigned))
            try publish(4000..<5000)
            second.close()
            #expect(first.waitForAssignment(of: 4, seconds: 30))
            try publish(5000..<6000)
            _ = seen.wait(seconds: 60) { $0.count == 6000 ? true : nil }
            first.close()
            #expect(first.failure == nil && second.failure == nil)
            let counts = seen.withLock { $0 }
            #expect(counts.count == 6000 && counts.values.allSatisfy { $0 == 1 })
            // What was handled is committed: nobody is behind.
            let committed = try log.committed(group: "crew")
            for partition in 0..<4 {
                let place = TopicPartition("shared", partition)
                #expect(try log.offsets(place).upperBound - (committed[place] ?? 0) <= 1)
            }
        }
    }
}
