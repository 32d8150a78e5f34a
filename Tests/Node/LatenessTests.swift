import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Streams
import Testing

extension HeavyTests {
    /// Events that come out of order to a topic that allows for it, through a node and its next life.
    @Suite struct LatenessTests {
        private static func running() -> StreamBuilder {
            let stream = StreamBuilder("running")
            stream.stream("phones", Double.self).keyedByEvent().reduce { $0 * 10 + $1.value }.served(as: "digits")
                .changes().to("running.out", type: "t")
            return stream
        }

        @Test func aTopicMayBeBehind() async throws {
            let scratch = try ScratchDirectory()
            var settings = NodeConfiguration(
                dataDirectory: scratch.path + "/data", platformTopics: projectDirectory + "/Topics")
            settings.workspace = scratch.path + "/workspace"
            settings.streams = [StreamTopology(Self.running)]
            try FileManager.default.createDirectory(
                atPath: scratch.path + "/workspace", withIntermediateDirectories: true)
            func declare(_ more: String) throws {
                try Data("kind: Topic\nname: phones\n\(more)".utf8)
                    .write(to: URL(filePath: scratch.path + "/workspace/w.yaml"))
            }
            try declare("cleanup: compact\nlateness: 60s\n")
            #expect(errorCode { try Node(settings).stop() } == "bad-definition")
            try declare("lateness: 60s\n")

            let start = Instant.wallClock().milliseconds - 600_000
            func publish(_ node: Node, _ events: [(digit: Int, at: Int64)]) async throws {
                _ = try await node.gateway.publish(
                    events.map { digit, at in
                        (
                            "phones",
                            NewEvent(
                                id: "e\(digit)", source: "s", type: "t", time: Instant(milliseconds: start + at * 40),
                                key: [0x6B], data: [UInt8]("\(digit)".utf8))
                        )
                    }, principal: "p")
            }
            func value(_ node: Node) async throws -> Double? {
                try? await node.view(stream: "running", view: "digits", key: "k", asOf: nil)["value"]?.double
            }
            func wait(_ node: Node, _ wanted: Double) async throws {
                for _ in 0..<1000 where try await value(node) != wanted { try await Task.sleep(for: .milliseconds(10)) }
                let status = try node.status()["streams"] ?? .null
                #expect(try await value(node) == wanted, "\(status) \(node.failures)")
            }
            var node = try Node(settings)
            try node.start()
            // In one batch, and one by one.
            try await publish(node, [(2, 1000), (1, 500)])
            try await publish(node, [(4, 2000)])
            try await publish(node, [(3, 1500)])
            try await publish(node, [(6, 2600)])
            // In units of 40 ms: complete through 1099; the others wait for what may still come.
            try await wait(node, 12)
            node.stop()
            // What waits survives.
            node = try Node(settings)
            try node.start()
            try await publish(node, [(5, 2300), (9, 1000)])
            // Complete far enough for all but itself.
            try await publish(node, [(7, 5000)])
            try await wait(node, 123_456)
            let status = try node.status()["streams"]?.array?.first
            #expect(status?["late"] == 1 && status?["folded"]?.int == 7, "\(status ?? .null)")
            let replay = try node.replay(to: nil, processor: "running")
            #expect(replay["verdict"] == "EXACT", "\(replay)")
            node.stop()
        }
    }
}
