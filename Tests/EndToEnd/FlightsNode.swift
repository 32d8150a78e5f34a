import Base
import EventLog
import Foundation
import HTTP
import RecordFormat
import Testing

/// The built program.
let headrace = projectDirectory + "/.build/release/headrace"

/// A node in a process of its own on a free port, stopped by its pid.
final class FlightsNode: @unchecked Sendable {
    // Unchecked: a test drives it from one task at a time; there is no lock because nothing is shared.
    let process = Process()
    let data: String

    init(
        data: String, until: String? = nil, connector: String? = "Connectors/flights.json", exit: Bool = true,
        checkpoint: Double = 2, kafka: String? = nil, workspace: String = "Examples/flights", keys: String? = nil
    ) throws {
        self.data = data
        process.executableURL = URL(filePath: headrace)
        var arguments = [
            "start", "--data", data, "--workspace", workspace, "--port", "0", "--checkpoint", "\(checkpoint)",
        ]
        if let connector { arguments += ["--connector", connector] }
        if let kafka { arguments += ["--kafka", kafka] }
        if let keys { arguments += ["--keys", keys] }
        if let until { arguments += ["--until", until] }
        if exit { arguments.append("--exit") }
        process.arguments = arguments
        process.currentDirectoryURL = URL(filePath: projectDirectory)
        process.environment = ProcessInfo.processInfo.environment.merging(["HEADRACE_FLIGHTS": flightsDirectory ?? ""])
        { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
        let errors = data + "/stderr"
        if !FileManager.default.fileExists(atPath: errors) {
            _ = FileManager.default.createFile(atPath: errors, contents: nil)
        }
        let handle = try #require(FileHandle(forWritingAtPath: errors))
        try handle.seekToEnd()
        process.standardError = handle
        try? FileManager.default.removeItem(atPath: data + "/node.json")
        try process.run()
    }

    var errors: String {
        String(decoding: FileManager.default.contents(atPath: data + "/stderr") ?? Data(), as: UTF8.self)
    }

    /// Waits until the node says where it listens.
    func address() throws -> String {
        for _ in 0..<600 {
            if let bytes = FileManager.default.contents(atPath: data + "/node.json"),
                let json = try? JSON(parsing: [UInt8](bytes)),
                let address = json["address"]?.string
            {
                return address
            }
            guard process.isRunning else { break }
            Thread.sleep(forTimeInterval: 0.05)
        }
        throw EventLogError("test", "the node did not start: \(errors)")
    }

    func killNow() {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
    }
}

struct HTTPAnswer {
    let status: Int
    let body: [UInt8]
    var json: JSON { (try? JSON(parsing: body)) ?? .null }
    var text: String { String(decoding: body, as: UTF8.self) }
}

func http(_ method: String, _ url: String, headers: [String: String] = [:], body: [UInt8]? = nil) async throws
    -> HTTPAnswer
{
    let answer = try await HTTPClient.send(method, url, headers: headers, body: body, within: 120)
    return HTTPAnswer(status: answer.status, body: answer.body)
}

/// Everything that must not depend on when a node was killed: per derived topic the events with their data, and the state
/// digests among them.
func fingerprint(_ data: String) throws -> [String: String] {
    var options = EmbeddedLog.Options()
    options.readOnly = true
    let log = try EmbeddedLog.open(data + "/log", options: options)
    var result: [String: String] = [:]
    for topic in [
        "flights.scheduled", "flights.departed", "flights.arrived", "flights.cancelled", "weather.observed", "planes",
        "questions.asked", "outcomes.observed", "training.requested", "models.registered", "models.deployed",
        "models.rejected", "models.artifacts", "predictions.served", "monitors.performance", "monitors.drift",
        "retraining.triggered", "headrace.digests", "headrace.dead-letters", "headrace.unfolded", "headrace.late",
    ] {
        for partition in 0..<2 {
            var stream = DigestStream()
            var count = 0
            try log.forEachEvent(TopicPartition(topic, partition)) { event in
                count += 1
                stream.update("\(event.offset) \(event.id) \(event.time)")
                stream.update(event.data ?? [])
                return true
            }
            if count > 0 { result["\(topic)/\(partition)"] = "\(count) \(stream.finish().hex)" }
        }
    }
    return result
}
