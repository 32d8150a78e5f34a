import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Streams
import Testing

extension HeavyTests {
    /// How a changed stream comes into the place of the one in force, in a node's lives, on both logs.
    @Suite struct StreamRolloutTests {
        private let scratch: ScratchDirectory
        private var settings: NodeConfiguration

        init() throws {
            scratch = try ScratchDirectory()
            settings = NodeConfiguration(
                dataDirectory: scratch.path + "/data", platformTopics: projectDirectory + "/Topics")
            settings.workspace = scratch.path + "/workspace"
            try FileManager.default.createDirectory(
                atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
            try Data("kind: Topic\nname: orders\npartitions: 2\n".utf8)
                .write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
        }

        /// The running sum of each key, of which the second version makes the running sum of doubles.
        private static func sums(_ version: Int) -> @Sendable () -> StreamBuilder {
            {
                let orders = StreamBuilder("sums", version: version, runs: .byPartition)
                let keyed = orders.stream("orders", JSON.self).keyedByEvent()
                keyed.map("amount") { ($0.value["amount"]?.double ?? 0) * Double(version) }
                    .reduce("sum") { $0 + $1.value }.served(as: "running").changes().to("sums.out", type: "sum")
                keyed.windowed(by: .tumbling(milliseconds: 1000)).measure(.count()).to("sums.counted", type: "count")
                return orders
            }
        }

        private func node(
            _ version: Int, _ broker: KafkaBroker?, tries: Bool = false, data: String = "/data"
        ) throws -> Node {
            var settings = settings
            settings.dataDirectory = scratch.path + data
            settings.streams = [StreamTopology(Self.sums(version))]
            settings.triesChanges = tries
            settings.kafka = broker?.address
            return try Node(settings)
        }

        private func settle(_ node: Node) async throws {
            for _ in 0..<3000 {
                // Once is enough: on Kafka a checkpoint stirs the log for a moment.
                if node.isSettled && node.fold.status.loaded { return }
                #expect(node.failures == [])
                try await Task.sleep(for: .milliseconds(10))
            }
            Issue.record("\(try node.status())")
        }

        private func publish(_ node: Node, _ numbers: Range<Int>, start: Int64, odd: Int = -1) async throws {
            let events = numbers.map { number in
                (
                    "orders",
                    NewEvent(
                        id: "o\(number)", source: "test", type: "order",
                        time: Instant(milliseconds: start + Int64(number) * 100), key: [UInt8]("k\(number % 7)".utf8),
                        data: [UInt8](#"{"amount":\#(number == odd ? 1000 : number)}"#.utf8))
                )
            }
            _ = try await node.gateway.publish(events, principal: "p")
            try await settle(node)
        }

        private func lines(_ node: Node, _ topic: String) throws -> [String: [Double]] {
            var found: [String: [Double]] = [:]
            for partition in 0..<node.log.partitions(of: topic) {
                try node.log.forEachEvent(TopicPartition(topic, partition)) { event in
                    let data = try JSON(parsing: event.data ?? [])
                    let key = String(decoding: event.key ?? [], as: UTF8.self)
                    found[key, default: []].append(data.double ?? data["count"]?.double ?? .nan)
                    return true
                }
            }
            return found
        }

        /// What each key's sums must be: of each version from its first order on, over all there was before it.
        private static func expected(_ versions: [(version: Int, orders: Range<Int>)]) -> [String: [Double]] {
            var found: [String: [Double]] = [:]
            var amounts: [Int: Int] = [:]
            for (version, orders) in versions {
                for number in orders {
                    amounts[number % 7, default: 0] += number
                    found["k\(number % 7)", default: []].append(Double(version * (amounts[number % 7] ?? 0)))
                }
            }
            return found
        }

        @Test(arguments: [false, true]) func aChangedStreamTakesOver(isOnKafka: Bool) async throws {
            let broker = isOnKafka ? try KafkaBroker() : nil
            let start = (Instant.wallClock().milliseconds - 100_000) / 1000 * 1000
            let streams = scratch.path + "/data/streams"

            var running = try node(1, broker)
            try running.start()
            try await publish(running, 0..<60, start: start)
            running.stop()
            #expect(errorCode { try node(2, broker).stop() } == "in-force")

            // What would be another is named before anything is done.
            var tried = try node(2, broker, tries: true)
            let preview = try tried.replay(to: nil, processor: "sums")
            #expect(preview["verdict"] == "DIVERGED", "\(preview)")
            let swapped = try tried.swap(stream: "sums")
            #expect(swapped["generation"] == 2 && (swapped["eventsFolded"]?.int ?? 0) == 60, "\(swapped)")
            tried.stop()
            #expect(errorCode { try node(1, broker).stop() } == "in-force")

            running = try node(2, broker)
            try running.start()
            try await settle(running)
            let value = try await running.view(stream: "sums", view: "running", key: "k3", asOf: nil)
            #expect(value["value"]?.double == Self.expected([(2, 0..<60)])["k3"]?.last)
            try await publish(running, 60..<100, start: start)
            var versions: [(version: Int, orders: Range<Int>)] = [(1, 0..<60), (2, 60..<100)]
            #expect(try lines(running, "sums.out") == Self.expected(versions))
            let replay = try running.replay(to: nil, processor: "sums")
            #expect(replay["verdict"] == "EXACT" && (replay["storesCompared"]?.int ?? 0) > 3, "\(replay)")
            running.stop()

            // The log alone says where it took over.
            try FileManager.default.removeItem(atPath: streams)
            running = try node(2, broker)
            try running.start()
            try await publish(running, 100..<130, start: start)
            versions.append((2, 100..<130))
            #expect(try lines(running, "sums.out") == Self.expected(versions))
            running.stop()

            // One by one, and back again.
            for (number, version) in [3, 1].enumerated() {
                tried = try node(version, broker, tries: true)
                let swapped = try tried.swap(stream: "sums")
                #expect(swapped["generation"]?.int == Int64(3 + number), "\(swapped)")
                #expect(errorCode { _ = try tried.swap(stream: "nothing") } == "unknown-stream")
                tried.stop()
                running = try node(version, broker)
                #expect(errorCode { _ = try running.swap(stream: "sums") } == "unchanged")
                try running.start()
                let orders = 130 + number * 20..<150 + number * 20
                try await publish(running, orders, start: start)
                versions.append((version, orders))
                let replay = try running.replay(to: nil, processor: "sums")
                #expect(replay["verdict"] == "EXACT", "\(replay)")
                running.stop()
            }
            running = try node(1, broker)
            #expect(try lines(running, "sums.out") == Self.expected(versions))
            // Each window once, whoever closed it; the newest is open.
            let counted = try lines(running, "sums.counted").values.joined().reduce(0, +)
            #expect((160...170).contains(counted), "\(counted)")
            running.stop()
        }

        /// State of which one value is another is found down to its key, in a node that runs and in what one stored.
        @Test func whatDiffersIsNamedByItsKey() async throws {
            let start = Instant.wallClock().milliseconds - 100_000
            for (data, odd) in [("/data", -1), ("/other", 37)] {
                let running = try node(1, nil, data: data)
                try running.start()
                try await publish(running, 0..<60, start: start, odd: odd)
                running.stop()
            }
            let (streams, others) = (scratch.path + "/data/streams", scratch.path + "/other/streams")
            try FileManager.default.removeItem(atPath: streams)
            try FileManager.default.copyItem(atPath: others, toPath: streams)
            let running = try node(1, nil)
            for isRunning in [false, true] {
                if isRunning {
                    try running.start()
                    try await settle(running)
                }
                let answer = try running.replay(to: nil, processor: "sums")
                #expect(answer["verdict"] == "DIVERGED", "\(answer)")
                #expect(answer["firstDifference"]?["key"] == "k2", "\(answer)")
                #expect(answer["reason"]?.string?.contains("the key 'k2' has another value") == true, "\(answer)")
            }
            running.stop()
        }

        /// State that a replay keeps is folded on by the next, and can be asked.
        @Test func aReplayKeepsItsState() async throws {
            let start = Instant.wallClock().milliseconds - 100_000
            let folder = scratch.path + "/rebuilt"
            for round in 0..<2 {
                let running = try node(1, nil)
                try running.start()
                try await publish(running, round * 50..<(round + 1) * 50, start: start)
                running.stop()
                let node = try node(1, nil)
                let answer = try node.replay(stream: "sums", to: .end, into: folder, compares: round == 1)
                #expect(answer["eventsFolded"]?.int == 50, "\(answer)")
                #expect(answer["verdict"] == (round == 1 ? "EXACT" : nil), "\(answer)")
                let value = try node.view(stream: "sums", view: "running", key: "k3", state: folder)
                #expect(
                    value["value"]?.double == Self.expected([(1, 0..<(round + 1) * 50)])["k3"]?.last, "\(value)")
                #expect(
                    errorCode {
                        _ = try node.replay(
                            stream: "sums", to: .time(Instant(milliseconds: start)), into: folder, compares: false)
                    } == "state-ahead")
                #expect(
                    errorCode { _ = try node.view(stream: "sums", view: "running", key: "k3", state: scratch.path) }
                        == "no-state")
                node.stop()
            }
            // What was killed behind its last checkpoint is not at rest.
            let state = scratch.path + "/data/streams"
            for name in try FileManager.default.contentsOfDirectory(atPath: state) {
                try FileManager.default.removeItem(atPath: state + "/" + name)
            }
            let tried = try node(2, nil, tries: true)
            #expect(errorCode { _ = try tried.swap(stream: "sums") } == "not-at-rest")
            tried.stop()
        }
    }
}
