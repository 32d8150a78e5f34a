import Base
import EventLog
import Foundation
import KafkaLog
import Testing

/// The cluster that the shop's nodes share: librdkafka's, which lets silent members go and cannot abort a transaction, or
/// noida-db 0.2.3, which aborts and keeps silent members for ever.
enum ShopCluster {
    case mock(MockCluster)
    case broker(KafkaBroker)

    var configuration: KafkaConfiguration {
        switch self {
        case .mock(let mock): mock.configuration()
        case .broker(let broker): broker.configuration
        }
    }

    /// What a node's settings say of it. A silent node goes sooner than by itself, so that a test need not wait for as long.
    var properties: String {
        switch self {
        case .mock: "headrace.creates-topics=false\nsession.timeout.ms=3000\nheartbeat.interval.ms=300\n"
        case .broker: ""
        }
    }

    /// The session of a silent node is over.
    func expire(_ node: ShopNode) throws {
        guard case .broker(let broker) = self else { return }
        let member = node.address.replacing("http://", with: "")
        #expect(
            try ask(
                broker, ["remove-member", "127.0.0.1:\(broker.port)", "headrace.tasks", "headrace-tasks@\(member)"])
                == 1)
    }

    /// The records of a topic, those of aborted transactions too.
    func records(of topic: String) throws -> Int? {
        guard case .broker(let broker) = self else { return nil }
        return try ask(broker, ["count", "127.0.0.1:\(broker.port)", topic])
    }

    private func ask(_ broker: KafkaBroker, _ arguments: [String]) throws -> Int? {
        guard let python else { throw TestSupportError.noBroker }
        let found = try run(python, [projectDirectory + "/Tests/Contract/Python/kafka_cluster.py"] + arguments)
        if found.status != 0 { throw EventLogError("test", found.errors) }
        return Int(found.output.trimmingCharacters(in: .whitespacesAndNewlines))
    }
}

/// One of several nodes of the shop's program, in a process of its own.
final class ShopNode: @unchecked Sendable {
    // Unchecked: a test drives it from one task at a time; there is no lock because nothing is shared.
    private let process = Process()
    private let data: String
    let address: String

    init(_ command: [String], data: String, on cluster: ShopCluster, checkpoint: Double) async throws {
        self.data = data
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
        try Data(cluster.properties.utf8).write(to: URL(filePath: data + "/kafka.properties"))
        process.executableURL = URL(filePath: projectDirectory + "/.build/release/shop-streams")
        process.arguments =
            command + [
                "--data", data, "--port", "0", "--checkpoint", "\(checkpoint)", "--kafka",
                cluster.configuration.bootstrap, "--kafka-config", data + "/kafka.properties",
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
