import Base
import EventLog
import Foundation
import HTTP
import Node

/// Talks to the node that owns the data directory, or opens the directory itself when there is none.
final class Connection {
    private enum Way {
        case remote(String)
        case local(Node)
    }

    private let way: Way

    /// - Parameter triesChanges: the program's streams may be others than those in force.
    init(dataDirectory: String, triesChanges: Bool = false) throws {
        var configuration = NodeConfiguration(dataDirectory: dataDirectory, platformTopics: home() + "/Topics")
        configuration.streams = Headrace.streams.withLock { $0 }
        configuration.triesChanges = triesChanges
        if let data = FileManager.default.contents(atPath: configuration.addressFile),
            let json = try? JSON(parsing: [UInt8](data)),
            let address = json["address"]?.string, EmbeddedLog.isOwned(configuration.logDirectory)
        {
            way = .remote(address)
            return
        }
        guard FileManager.default.fileExists(atPath: configuration.logDirectory) else {
            throw NodeError(
                "unknown-data",
                "there is no node and no log in '\(dataDirectory)'; start one with ./start or headrace start")
        }
        way = .local(try Node(configuration))
    }

    func close() {
        if case .local(let node) = way { node.stop() }
    }

    /// The node when it was opened here.
    var local: Node? {
        if case .local(let node) = way { node } else { nil }
    }

    /// Seconds a long answer (an audit) may take.
    private static let patience = 3600.0

    /// Asks over HTTP where a node runs, and calls `direct` where none does.
    func ask(
        _ method: String, _ path: String, body: [UInt8]? = nil, contentType: String = "application/json",
        direct: (Node) async throws -> JSON
    ) async throws -> JSON {
        switch way {
        case .local(let node): return try await direct(node)
        case .remote(let address):
            let answer: HTTPClient.Answer
            do {
                answer = try await HTTPClient.send(
                    method, address + path, headers: body == nil ? [:] : ["Content-Type": contentType], body: body,
                    within: Self.patience)
            } catch {
                throw NodeError(
                    error.code, "the node at \(address) gave no answer: \(error.message)", cause: error.cause,
                    fault: error.fault, retriable: error.retriable)
            }
            let status = answer.status
            guard let json = try? JSON(parsing: answer.body) else {
                throw NodeError("bad-answer", "the node at \(address) answered \(status) without JSON", fault: .world)
            }
            guard status < 300 else {
                throw NodeError(
                    json["error"]?["code"]?.string ?? "refused",
                    json["error"]?["message"]?.string ?? "the node answered \(status)",
                    fault: status >= 500 ? .world : .caller)
            }
            return json
        }
    }

    static func escape(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? text
    }
}
