import Base
import EventLog
import Foundation
import KafkaLog
import Node
import RecordFormat
import StreamExamples
import Streams
import Testing

/// One of several nodes of the shop's program, in a process of its own.
private final class ShopNode: @unchecked Sendable {
    // Unchecked: a test drives it from one task at a time; there is no lock because nothing is shared.
    private let process = Process()
    private let data: String
    let address: String

    init(_ command: [String], data: String, kafka: MockCluster, checkpoint: Double) async throws {
        self.data = data
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
        // Sooner than a cluster allows by itself, so that the test need not wait for as long.
        try Data("headrace.creates-topics=false\nsession.timeout.ms=3000\nheartbeat.interval.ms=300\n".utf8)
            .write(to: URL(filePath: data + "/kafka.properties"))
        process.executableURL = URL(filePath: projectDirectory + "/.build/release/shop-streams")
        process.arguments =
            command + [
                "--data", data, "--port", "0", "--checkpoint", "\(checkpoint)", "--kafka",
                kafka.configuration().bootstrap, "--kafka-config", data + "/kafka.properties",
            ]
        process.currentDirectoryURL = URL(filePath: projectDirectory)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        _ = FileManager.default.createFile(atPath: data + "/stderr", contents: nil)
        process.standardError = try FileHandle(forWritingTo: URL(filePath: data + "/stderr"))
        try? FileManager.default.removeItem(atPath: data + "/node.json")
        try process.run()
        for _ in 0..<600 {
            if let bytes = FileManager.default.contents(atPath: data + "/node.json"),
                let address = try? JSON(parsing: [UInt8](bytes))["address"]?.string
            {
                self.address = address
                return
            }
            try await Task.sleep(for: .milliseconds(50))
        }
        address = ""
        throw EventLogError("test", "the node did not start: \(Self.errors(data))")
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    private static func errors(_ data: String) -> String {
        String(decoding: FileManager.default.contents(atPath: data + "/stderr") ?? Data(), as: UTF8.self)
    }

    func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    func end(_ signal: Int32) -> Int32 {
        send(signal)
        process.waitUntilExit()
        return process.terminationStatus
    }

    /// What it says of the stream.
    func stream() async throws -> JSON {
        try await http("GET", address + "/v1/status").json["streams"]?.array?.first ?? .null
    }

    func tasks() async throws -> [Int] {
        (try await stream())["here"]?.array?.compactMap { $0.int.map(Int.init) } ?? []
    }

    func spent(_ key: String) async throws -> HTTPAnswer {
        try await http("GET", "\(address)/v1/streams/visits/spent/\(key)")
    }
}

extension HeavyTests {
    /// Three node processes share twelve tasks, one is killed, one falls silent and comes back, one leaves: the outputs are those
    /// of a single node, and every key is answered for all the while. On librdkafka's cluster, which lets silent members go:
    /// noida-db 0.2.3 keeps them for ever.
    @Suite(.serialized) struct SharedStreamsTests {
        private static let visitors = 100
        private let scratch: ScratchDirectory
        private let mock: MockCluster
        private let start = Instant.wallClock().milliseconds - 600_000

        init() throws {
            scratch = try ScratchDirectory()
            let platform = try FileManager.default.contentsOfDirectory(atPath: projectDirectory + "/Topics")
            let shared = ["shop.clicks", "visits.hourly"] + SideTopics(of: "visits").all + SideTopics(of: "visits").own
            mock = try MockCluster(
                brokers: 1,
                topics: platform.map { (String($0.dropLast(5)), 1) } + shared.map { ($0, 12) })
        }

        private func click(_ number: Int) -> (id: String, time: Instant, key: String, data: String) {
            (
                "c\(number)", Instant(milliseconds: start + Int64(number) * 40), "v\(number * 7919 % Self.visitors)",
                #"{"page":"p\#(number % 9)","spent":\#(number % 13)}"#
            )
        }

        private func publish(_ numbers: Range<Int>, to node: ShopNode) async throws {
            for first in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 100) {
                let events = (first..<min(first + 100, numbers.upperBound)).map { number -> JSON in
                    let click = click(number)
                    return .object([
                        "specversion": "1.0", "id": .string(click.id), "source": "test", "type": "click",
                        "time": .string(click.time.description), "partitionkey": .string(click.key),
                        "data": (try? JSON(parsing: [UInt8](click.data.utf8))) ?? .null,
                    ])
                }
                let answer = try await http(
                    "POST", node.address + "/v1/events?topic=shop.clicks",
                    headers: ["Content-Type": "application/cloudevents-batch+json"],
                    body: JSON.array(events).canonical)
                try #require(answer.status == 200, "\(answer.text)")
            }
        }

        /// Waits until these nodes have every task between them, and have folded what there is.
        private func share(_ nodes: [ShopNode], _ what: String) async throws {
            var last = ""
            for _ in 0..<600 {
                var tasks: [Int] = []
                var isDrained = true
                var isEach = true
                for node in nodes {
                    let stream = try await node.stream()
                    let here = stream["here"]?.array?.compactMap { $0.int.map(Int.init) } ?? []
                    tasks += here
                    isEach = isEach && !here.isEmpty
                    isDrained = isDrained && stream["drained"]?.bool == true
                }
                if tasks.sorted() == Array(0..<12), isEach, isDrained { return }
                last = "\(tasks.sorted()) \(isDrained)"
                for node in nodes { last += " " + (try await http("GET", node.address + "/v1/status").text) }
                try await Task.sleep(for: .milliseconds(50))
            }
            Issue.record("\(what): \(last)")
        }

        /// What the stream wrote, in order for each visitor.
        private func outputs(_ log: any EventLog) throws -> [String: [String]] {
            var found: [String: [String]] = [:]
            for partition in 0..<log.partitions(of: "visits.hourly") {
                try log.forEachEvent(TopicPartition("visits.hourly", partition)) { event in
                    let key = String(decoding: event.key ?? [], as: UTF8.self)
                    found[key, default: []].append("\(event.time) " + String(decoding: event.data ?? [], as: UTF8.self))
                    return true
                }
            }
            return found
        }

        /// The same clicks through one node alone.
        private func alone(_ count: Int) async throws -> [String: [String]] {
            var settings = NodeConfiguration(
                dataDirectory: scratch.path + "/alone", platformTopics: projectDirectory + "/Topics")
            settings.workspace = projectDirectory + "/Examples/streams/shop"
            settings.streams = [StreamTopology(ShopStreams.visits)]
            let node = try Node(settings)
            try node.start()
            for first in stride(from: 0, to: count, by: 100) {
                _ = try await node.gateway.publish(
                    (first..<min(first + 100, count)).map { number in
                        let click = click(number)
                        return (
                            "shop.clicks",
                            NewEvent(
                                id: click.id, source: "test", type: "click", time: click.time,
                                key: [UInt8](click.key.utf8), data: [UInt8](click.data.utf8))
                        )
                    }, principal: "p")
            }
            for _ in 0..<1000 where !(node.isSettled && node.fold.status.loaded) {
                try await Task.sleep(for: .milliseconds(10))
            }
            #expect(node.isSettled && node.failures.isEmpty)
            defer { node.stop() }
            return try outputs(node.log)
        }

        /// Asks for keys until it is told to stop; the longest that one was without an answer, in seconds.
        private func ask(_ nodes: [ShopNode], _ done: Monitor<Bool>) async throws -> Double {
            var longest = 0.0
            var number = 0
            while !done.withLock({ $0 }) {
                let begun = ContinuousClock.now
                let answer = try await nodes[number % nodes.count].spent("v\(number % Self.visitors)")
                #expect(answer.status == 200, "\(answer.text)")
                let seconds = (ContinuousClock.now - begun) / .seconds(1)
                longest = max(longest, seconds)
                number += 1
            }
            return longest
        }

        /// Long enough for what is under way to be committed: librdkafka's cluster shows what a transaction wrote that came to
        /// nothing, so nobody is stopped in the middle of one here.
        private func rest() async throws { try await Task.sleep(for: .seconds(1.5)) }

        @Test(.timeLimit(.minutes(4))) func tasksMoveAndNothingIsLostOrDoubled() async throws {
            let root = scratch.path
            let first = try await ShopNode(
                ["start", "--workspace", "Examples/streams/shop"], data: root + "/a", kafka: mock, checkpoint: 0.3)
            let second = try await ShopNode(["work"], data: root + "/b", kafka: mock, checkpoint: 0.3)
            // Never makes a checkpoint unless it must: what it did is folded again by whoever takes its tasks.
            var third = try await ShopNode(["work"], data: root + "/c", kafka: mock, checkpoint: 3600)
            try await share([first, second, third], "three nodes")
            try await publish(0..<1500, to: first)
            try await share([first, second, third], "half of the clicks")
            let lost = try await third.tasks()
            #expect(lost.count == 4)

            try await rest()
            let done = Monitor(false)
            async let longest = ask([first, second], done)
            _ = third.end(SIGKILL)
            try await publish(1500..<3000, to: first)
            try await share([first, second], "after a kill")
            done.withLock { $0 = true }
            let seconds = try await longest
            #expect(seconds < 10, "a key was without an answer for \(seconds) s")

            third = try await ShopNode(["work"], data: root + "/c", kafka: mock, checkpoint: 0.3)
            try await share([first, second, third], "it comes back")
            // Silent for longer than the group waits, and then it goes on as if nothing had been.
            try await rest()
            second.send(SIGSTOP)
            try await publish(3000..<3500, to: first)
            try await share([first, third], "one is silent")
            second.send(SIGCONT)
            try await publish(3500..<4000, to: first)
            try await share([first, second, third], "it speaks again")

            var sums: [String: Double] = [:]
            for number in 0..<4000 { sums[click(number).key, default: 0] += Double(number % 13) }
            for (key, sum) in sums.sorted(by: { $0.key < $1.key }) {
                for node in [first, second, third] {
                    #expect(try await node.spent(key).json["value"]?.double == sum, "\(key)")
                }
            }
            let unknown = try await second.spent("nobody")
            #expect(unknown.status == 404 && unknown.json["error"]?["code"] == "unknown-key")
            for node in [first, second, third] {
                let status = try await http("GET", node.address + "/v1/status").json
                #expect(status["failures"]?.array?.isEmpty == true, "\(status)")
                #expect(status["streams"]?.array?.first?["late"] == 0)
            }
            let log = try KafkaLog.open(mock.configuration(), named: "looking")
            defer { log.close() }
            try log.declare(TopicLayout(name: "visits.hourly", partitions: 12))
            let single = try await alone(4000)
            #expect(single.values.reduce(0) { $0 + $1.count } == 4000)
            #expect(try outputs(log) == single)
            let replay = try await http("POST", first.address + "/v1/replay?processor=visits").json
            #expect(replay["verdict"] == "EXACT" && replay["eventsCompared"] == 4000, "\(replay)")
            // Who leaves in order leaves nothing behind.
            #expect(third.end(SIGTERM) == 0 && second.end(SIGTERM) == 0)
            try await share([first], "one is left")
            #expect(first.end(SIGTERM) == 0)
        }
    }
}
