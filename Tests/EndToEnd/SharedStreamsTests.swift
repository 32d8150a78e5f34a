import Base
import EventLog
import Foundation
import KafkaLog
import Node
import RecordFormat
import StreamExamples
import Streams
import Testing

extension HeavyTests {
    /// Three node processes share twelve tasks, some are killed, fall silent and come back, or leave: the outputs are those
    /// of a single node, and every key is answered for all the while.
    @Suite(.serialized) struct SharedStreamsTests {
        private static let visitors = 100
        private static let rounds = 6
        /// When none of them met a transaction under way.
        private static let mostRounds = 20
        private let scratch: ScratchDirectory
        private let start = Instant.wallClock().milliseconds - 600_000

        init() throws { scratch = try ScratchDirectory() }

        private static func mock() throws -> ShopCluster {
            let platform = try FileManager.default.contentsOfDirectory(atPath: projectDirectory + "/Topics")
            let shared = ["shop.clicks", "visits.hourly"] + SideTopics(of: "visits").all + SideTopics(of: "visits").own
            return .mock(
                try MockCluster(
                    brokers: 1,
                    topics: platform.map { (String($0.dropLast(5)), 1) } + shared.map { ($0, 12) }))
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
            throw EventLogError("unshared", "\(what): \(last)")
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

        /// What stands in the outputs of a key, and where, for who looks into a difference.
        private func listing(_ log: any EventLog, _ key: String) throws -> String {
            var lines: [String] = []
            for partition in 0..<log.partitions(of: "visits.hourly") {
                try log.forEachEvent(TopicPartition("visits.hourly", partition)) { event in
                    if event.key == [UInt8](key.utf8) {
                        lines.append(
                            "\(partition)@\(event.offset) \(event.time) \(event.id) "
                                + String(decoding: event.data ?? [], as: UTF8.self))
                    }
                    return true
                }
            }
            return lines.joined(separator: "\n")
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

        /// Every node answers what the clicks say, and what was written is what a single node writes.
        private func compare(_ nodes: [ShopNode], _ count: Int, _ cluster: ShopCluster) async throws {
            var sums: [String: Double] = [:]
            for number in 0..<count { sums[click(number).key, default: 0] += Double(number % 13) }
            for (key, sum) in sums.sorted(by: { $0.key < $1.key }) {
                for node in nodes {
                    #expect(try await node.spent(key).json["value"]?.double == sum, "\(key)")
                }
            }
            let unknown = try await nodes[1].spent("nobody")
            #expect(unknown.status == 404 && unknown.json["error"]?["code"] == "unknown-key")
            for node in nodes {
                let status = try await http("GET", node.address + "/v1/status").json
                #expect(status["failures"]?.array?.isEmpty == true, "\(status)")
                #expect(status["streams"]?.array?.first?["late"] == 0)
            }
            let log = try KafkaLog.open(cluster.configuration, named: "looking")
            defer { log.close() }
            try log.declare(TopicLayout(name: "visits.hourly", partitions: 12))
            let single = try await alone(count)
            #expect(single.values.reduce(0) { $0 + $1.count } == count)
            let shared = try outputs(log)
            let wrong = single.keys.sorted().filter { shared[$0] != single[$0] }
            let found = wrong.isEmpty ? "" : try listing(log, wrong[0])
            #expect(shared.count == single.count && wrong.isEmpty, "\(wrong.count) keys\n\(found)")
            let replay = try await http("POST", nodes[0].address + "/v1/replay?processor=visits").json
            #expect(replay["verdict"] == "EXACT" && replay["eventsCompared"]?.int == Int64(count), "\(replay)")
        }

        /// Long enough for what is under way to be committed: librdkafka's cluster shows what a transaction wrote that came to
        /// nothing, so nobody is stopped in the middle of one here.
        private func rest() async throws { try await Task.sleep(for: .seconds(1.5)) }

        @Test(.timeLimit(.minutes(4))) func tasksMoveAndNothingIsLostOrDoubled() async throws {
            let root = scratch.path
            let cluster = try Self.mock()
            let first = try await ShopNode(
                ["start", "--workspace", "Examples/streams/shop"], data: root + "/a", on: cluster, checkpoint: 0.3)
            let second = try await ShopNode(["work"], data: root + "/b", on: cluster, checkpoint: 0.3)
            // Never makes a checkpoint unless it must: what it did is folded again by whoever takes its tasks.
            var third = try await ShopNode(["work"], data: root + "/c", on: cluster, checkpoint: 3600)
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

            third = try await ShopNode(["work"], data: root + "/c", on: cluster, checkpoint: 0.3)
            try await share([first, second, third], "it comes back")
            // Silent for longer than the group waits, and then it goes on as if nothing had been.
            try await rest()
            second.send(SIGSTOP)
            try await publish(3000..<3500, to: first)
            try await share([first, third], "one is silent")
            second.send(SIGCONT)
            try await publish(3500..<4000, to: first)
            try await share([first, second, third], "it speaks again")

            try await compare([first, second, third], 4000, cluster)
            // Who leaves in order leaves nothing behind.
            #expect(third.end(SIGTERM) == 0 && second.end(SIGTERM) == 0)
            try await share([first], "one is left")
            #expect(first.end(SIGTERM) == 0)
        }

        /// Killed or stopped at any moment, in the middle of transactions too: what came to nothing is in no state and in no output.
        @Test(.timeLimit(.minutes(6))) func interruptedTransactionsComeToNothing() async throws {
            // Under load noida-db's group was once seen not to come to rest at all; nothing can be said then, so it begins anew.
            for attempt in 1...3 {
                do {
                    return try await interrupt(scratch.path + "/\(attempt)")
                } catch let error as EventLogError where error.code == "unshared" && attempt < 3 {
                    continue
                }
            }
        }

        private func interrupt(_ root: String) async throws {
            let cluster = ShopCluster.broker(try KafkaBroker(isExact: true))
            let first = try await ShopNode(
                ["start", "--workspace", "Examples/streams/shop"], data: root + "/a", on: cluster, checkpoint: 0.1)
            let second = try await ShopNode(["work"], data: root + "/b", on: cluster, checkpoint: 0.1)
            var third = try await ShopNode(["work"], data: root + "/c", on: cluster, checkpoint: 0.1)
            try await share([first, second, third], "three nodes")
            var count = 0
            for round in 0..<Self.mostRounds
            where try round < Self.rounds || cluster.records(of: "visits.hourly") == count {
                count += 500
                let clicks = round * 500..<(round + 1) * 500
                async let published: Void = publish(clicks, to: first)
                try await Task.sleep(for: .milliseconds(40 + round % 6 * 30))
                let isKilled = round.isMultiple(of: 2)
                if isKilled { _ = third.end(SIGKILL) } else { second.send(SIGSTOP) }
                try cluster.expire(isKilled ? third : second)
                try await published
                try await share([first, isKilled ? second : third], "round \(round)")
                if isKilled {
                    third = try await ShopNode(["work"], data: root + "/c", on: cluster, checkpoint: 0.1)
                } else {
                    second.send(SIGCONT)
                }
                try await share([first, second, third], "back in round \(round)")
            }
            try await compare([first, second, third], count, cluster)
            let all = try cluster.records(of: "visits.hourly") ?? 0
            #expect(all > count, "no transaction was interrupted")
            for node in [third, second, first] { #expect(node.end(SIGTERM) == 0) }
        }
    }
}
