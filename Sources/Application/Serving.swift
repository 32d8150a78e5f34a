import API
import Base
import Foundation
import HTTP
import Node

/// A node's HTTP server, from when it listens until it ends.
struct Serving {
    /// Where it is reached on this machine.
    let address: String
    private let task: Task<Void, any Error>

    /// Listens, and writes down where.
    init(_ node: Node, _ settings: NodeConfiguration) async throws {
        let server = HTTPServer(host: settings.host, port: settings.port, statusOf: { httpStatus($0) })
        let routes = Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
        if settings.isWorker {
            routes.installShare(on: server)
        } else {
            routes.install(on: server)
            ConsolePage.install(on: server, node: node)
        }
        server.refuseTheRest()
        let (ports, continuation) = AsyncStream<Int>.makeStream()
        task = Task {
            do {
                try await server.run { continuation.yield($0) }
            } catch {
                continuation.finish()
                throw error
            }
        }
        var port: Int?
        for await given in ports {
            port = given
            break
        }
        guard let port else {
            throw NodeError(
                "port-taken", "cannot listen on \(settings.host):\(settings.port); choose another --port", fault: .world
            )
        }
        let host = settings.host.contains(":") ? "[\(settings.host)]" : settings.host
        address = "http://\(host):\(port)"
        let json = JSON.object([
            "address": .string(address), "pid": .int(Int64(ProcessInfo.processInfo.processIdentifier)),
        ])
        try Data(json.canonical).write(to: URL(filePath: settings.addressFile))
        let what = settings.isWorker ? "status and tables" : "console and API"
        FileHandle.standardError.write(Data("\(what) at \(address)\n".utf8))
    }

    func end() { task.cancel() }
}
