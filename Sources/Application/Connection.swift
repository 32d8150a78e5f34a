import Base
import EventLog
import Foundation
import FoundationNetworking
import Node

/// Talks to the node that owns the data directory, or opens the directory itself when there is none.
final class Connection {
    private enum Way {
        case remote(String)
        case local(Node)
    }

    private let way: Way

    init(dataDirectory: String) throws {
        var configuration = NodeConfiguration(dataDirectory: dataDirectory, platformTopics: home() + "/Topics")
        configuration.streams = Headrace.streams.withLock { $0 }
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
    /// The request's own limit is not enough: the session's holds beside it, and is a minute.
    private static let session: URLSession = {
        let configuration = URLSessionConfiguration.default
        configuration.timeoutIntervalForRequest = patience
        return URLSession(configuration: configuration)
    }()

    /// Asks over HTTP where a node runs, and calls `direct` where none does.
    func ask(
        _ method: String, _ path: String, body: [UInt8]? = nil, contentType: String = "application/json",
        direct: (Node) async throws -> JSON
    ) async throws -> JSON {
        switch way {
        case .local(let node): return try await direct(node)
        case .remote(let address):
            let (status, bytes) = try await Self.send(address + path, method, body, contentType)
            guard let json = try? JSON(parsing: bytes) else {
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

    private static func send(_ url: String, _ method: String, _ body: [UInt8]?, _ contentType: String) async throws -> (
        Int, [UInt8]
    ) {
        guard let url = URL(string: url) else { throw NodeError("bad-address", "'\(url)' is no address") }
        var request = URLRequest(url: url, timeoutInterval: patience)
        request.httpMethod = method
        if let body {
            request.httpBody = Data(body)
            request.setValue(contentType, forHTTPHeaderField: "Content-Type")
        }
        do {
            let (data, response) = try await session.data(for: request)
            return ((response as? HTTPURLResponse)?.statusCode ?? 0, [UInt8](data))
        } catch {
            throw NodeError(
                "unreachable", "the node at \(url.absoluteString) does not answer", cause: error, fault: .world,
                retriable: true)
        }
    }

    static func escape(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? text
    }
}
