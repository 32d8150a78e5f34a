import Base
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix

package enum HTTPModule {}
/// Errors of the HTTP server.
package typealias HTTPServerError = Failure<HTTPModule>

/// A request as routes see it: the body read within its limit.
package struct WebRequest: Sendable {
    package let method: String
    package let path: String
    package let parameters: [String: String]
    package let query: [String: String]
    package let body: [UInt8]
    private let fields: HTTPFields

    fileprivate init(_ request: Request, _ parameters: [String: String], _ body: [UInt8]) {
        method = request.method.rawValue
        path = request.uri.path
        self.parameters = parameters
        var query: [String: String] = [:]
        for pair in request.uri.queryParameters { query[String(pair.key)] = String(pair.value) }
        self.query = query
        self.body = body
        fields = request.headers
    }

    package func header(_ name: String) -> String? {
        HTTPField.Name(name).flatMap { fields[$0] }
    }

    /// Headers whose names begin with a prefix, in lower case without it.
    package func headers(prefix: String) -> [(name: String, value: String)] {
        fields.compactMap { field in
            let name = field.name.canonicalName
            return name.hasPrefix(prefix) ? (String(name.dropFirst(prefix.count)), field.value) : nil
        }
    }
}

/// An answer: bytes, or pieces as they come.
package struct WebResponse: Sendable {
    package enum Body: Sendable {
        case bytes([UInt8])
        case stream(AsyncStream<[UInt8]>)
    }

    package var status: Int
    package var contentType: String
    package var body: Body
    package var headers: [(String, String)] = []

    package init(status: Int = 200, contentType: String, body: Body) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    package static func json(_ json: JSON, status: Int = 200) -> WebResponse {
        WebResponse(status: status, contentType: "application/json", body: .bytes(json.canonical + [0x0A]))
    }

    package static func text(_ text: String, contentType: String = "text/plain; charset=utf-8", status: Int = 200)
        -> WebResponse
    {
        WebResponse(status: status, contentType: contentType, body: .bytes([UInt8](text.utf8)))
    }

    /// The one error shape.
    package static func failure(_ error: any DescribedError, status: Int) -> WebResponse {
        .json(
            .object(["error": .object(["code": .string(error.code), "message": .string(error.message)])]),
            status: status)
    }
}

/// The HTTP engine behind one door: routing, body limit, error answers, streaming replies.
package final class HTTPServer: Sendable {
    private let router = Monitor(Router())
    /// Methods by path, in the order they were given.
    private let known = Monitor<[(path: String, methods: [String])]>([])
    private let quick = Monitor<[String: [String: QuickAnswers.Answer]]>([:])
    /// Threads that read, write and answer at once: half of the cores, since the other half folds. With as many as there are
    /// cores, they and who asks on the same machine wait for one another: a tenth more answers, and a p99 twice as long.
    private static let loops = MultiThreadedEventLoopGroup(
        numberOfThreads: max(1, ProcessInfo.processInfo.activeProcessorCount / 2))
    private let host: String
    private let port: Int
    private let statusOf: @Sendable (any DescribedError) -> Int

    /// - Parameter statusOf: the HTTP status of an error by its code and fault.
    package init(host: String, port: Int, statusOf: @escaping @Sendable (any DescribedError) -> Int) {
        self.host = host
        self.port = port
        self.statusOf = statusOf
    }

    /// `path` may hold `:names` of parameters.
    package func route(
        _ method: String, _ path: String, _ handler: @escaping @Sendable (WebRequest) async throws -> WebResponse
    ) {
        known.withLock { known in
            if let index = known.firstIndex(where: { $0.path == path }) {
                known[index].methods.append(method)
            } else {
                known.append((path, [method]))
            }
        }
        let names = path.split(separator: "/").filter { $0.hasPrefix(":") }.map { String($0.dropFirst()) }
        router.withLock { router in
            guard let method = HTTPRequest.Method(method) else { preconditionFailure("'\(method)' is no HTTP method") }
            router.on(RouterPath(path), method: method) {
                [statusOf] request, context in
                var parameters: [String: String] = [:]
                for name in names { parameters[name] = context.parameters.get(name)?.removingPercentEncoding }
                do {
                    let buffer: ByteBuffer
                    do {
                        buffer = try await request.body.collect(upTo: Limits.requestBody)
                    } catch {
                        throw HTTPServerError("body-too-large", "a body may have \(Limits.requestBody) bytes")
                    }
                    let web = WebRequest(request, parameters, Array(buffer.readableBytesView))
                    return Self.respond(try await handler(web))
                } catch let error as any DescribedError {
                    return Self.respond(.failure(error, status: statusOf(error)))
                } catch {
                    let failure = HTTPServerError("internal", "the request failed: \(error)", fault: .headrace)
                    return Self.respond(.failure(failure, status: 500))
                }
            }
        }
    }

    /// Answers requests of a route before it does, on the thread that reads and writes their connection, with others: for what takes
    /// much less than a millisecond and waits for nobody.
    /// - Parameters:
    ///   - path: without parameters; a request with a query, or with a large body, goes to the route.
    ///   - answer: to a body; nil where the route must answer.
    package func answerQuickly(
        _ method: String, _ path: String, _ answer: @escaping @Sendable ([UInt8]) -> WebResponse?
    ) {
        quick.update { $0[path, default: [:]][method] = answer }
    }

    private static func respond(_ answer: WebResponse) -> Response {
        var headers = HTTPFields()
        headers[.contentType] = answer.contentType
        for (name, value) in answer.headers { if let field = HTTPField.Name(name) { headers[field] = value } }
        switch answer.body {
        case .bytes(let bytes):
            return Response(
                status: .init(code: answer.status), headers: headers,
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
        case .stream(let stream):
            headers[.cacheControl] = "no-cache"
            let body = ResponseBody { writer in
                for await piece in stream { try await writer.write(ByteBuffer(bytes: piece)) }
                try await writer.finish(nil)
            }
            return Response(status: .init(code: answer.status), headers: headers, body: body)
        }
    }

    /// Whatever no route takes is refused in the one error shape.
    package func refuseTheRest() {
        let all = ["GET", "POST", "PUT", "DELETE", "PATCH"]
        for (path, methods) in known.withLock({ $0 }) {
            for method in all where !methods.contains(method) {
                route(method, path) { request in
                    .failure(
                        HTTPServerError(
                            "method-not-allowed",
                            "\(request.path) takes \(methods.joined(separator: ", ")), not \(request.method)"),
                        status: 405)
                }
            }
        }
        for method in all {
            route(method, "/**") { request in
                .failure(
                    HTTPServerError(
                        "not-found", "there is no \(request.method) \(request.path); the README lists the routes"),
                    status: 404)
            }
        }
    }

    /// Serves until the task is cancelled. `running` gets the port once it listens.
    package func run(running: @escaping @Sendable (Int) async -> Void) async throws {
        var logger = Logger(label: "headrace.http")
        logger.logLevel = .critical
        let answers = quick.withLock { $0 }
        let application = Application(
            router: router.withLock { $0 },
            server: .http1(configuration: .init(additionalChannelHandlers: [QuickAnswerDoor(answers)])),
            configuration: .init(address: .hostname(host, port: port)),
            onServerRunning: { channel in await running(channel.localAddress?.port ?? 0) },
            eventLoopGroupProvider: .shared(Self.loops), logger: logger)
        try await application.run()
    }
}
