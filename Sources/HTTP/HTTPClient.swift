import Base
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// Asks an HTTP server and takes its whole answer. URLSession is not used: on Linux it spins a core for as long as an
/// answer takes, and an audit may take an hour.
package enum HTTPClient {
    package struct Answer: Sendable {
        package let status: Int
        package let body: [UInt8]
    }

    /// What a server may take to accept a connection.
    private static let connectPatience = TimeAmount.seconds(10)

    /// One request on a connection of its own.
    /// - Parameters:
    ///   - seconds: the time in which the whole answer must have come.
    ///   - limit: the bytes an answer may have.
    /// - Throws: `bad-address`; `unreachable` (retriable) where nobody listens; `no-answer` where the connection ended or
    ///   the time was up before the answer was whole; `too-large`.
    package static func send(
        _ method: String, _ url: String, headers: [String: String] = [:], body: [UInt8]? = nil, within seconds: Double,
        limit: Int = Limits.answerBytes
    ) async throws(HTTPServerError) -> Answer {
        guard let target = URLComponents(string: url), target.scheme == "http", let host = target.host else {
            throw HTTPServerError("bad-address", "'\(url.prefix { $0 != "?" && $0 != "@" })' is no http:// address")
        }
        let path = target.percentEncodedPath.isEmpty ? "/" : target.percentEncodedPath
        let port = target.port ?? 80
        var head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: method),
            uri: path + (target.percentEncodedQuery.map { "?" + $0 } ?? ""))
        for (name, value) in headers.sorted(by: { $0.key < $1.key }) { head.headers.add(name: name, value: value) }
        head.headers.replaceOrAdd(name: "Host", value: "\(host):\(port)")
        head.headers.replaceOrAdd(name: "Connection", value: "close")
        // A POST without a body says so: some servers wait for one otherwise.
        if body != nil || method == "POST" || method == "PUT" {
            head.headers.replaceOrAdd(name: "Content-Length", value: "\(body?.count ?? 0)")
        }
        // What is asked may name a person, and an address a password: neither is told.
        let place = "http://\(host):\(port)\(path)"
        let exchange = HTTPExchange(head: head, body: body ?? [], place: place, limit: limit)
        let name = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        do {
            return try await exchange.run(name, port, connectPatience, .nanoseconds(Int64(min(seconds, 1e9) * 1e9)))
        } catch let failure as HTTPServerError {
            throw failure
        } catch {
            throw HTTPServerError(
                "unreachable", "nobody answers at \(place)", cause: error, fault: .world, retriable: true)
        }
    }
}

/// A request and what has come of its answer. Sendable without a lock: its channel's event loop alone touches it.
private final class HTTPExchange: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let head: HTTPRequestHead
    private let body: [UInt8]
    private let place: String
    private let limit: Int
    private var promise: EventLoopPromise<HTTPClient.Answer>?
    private var status = 0
    private var answer: [UInt8] = []

    init(head: HTTPRequestHead, body: [UInt8], place: String, limit: Int) {
        (self.head, self.body, self.place, self.limit) = (head, body, place, limit)
    }

    func run(_ host: String, _ port: Int, _ connect: TimeAmount, _ patience: TimeAmount) async throws
        -> HTTPClient.Answer
    {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: HTTPClient.Answer.self)
        let deadline = NIODeadline.now() + patience
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: loop).connectTimeout(min(connect, patience))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        self.promise = promise
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        try channel.pipeline.syncOperations.addHandler(self)
                    }
                }.connect(host: host, port: port).get()
        } catch {
            promise.fail(error)
            throw error
        }
        let limit = loop.scheduleTask(deadline: deadline) {
            self.end(.failure(self.failure("the whole answer did not come in time")))
            channel.close(promise: nil)
        }
        defer { limit.cancel() }
        if Task.isCancelled { channel.close(promise: nil) }
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            channel.close(promise: nil)
        }
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !body.isEmpty {
            context.write(
                wrapOutboundOut(.body(.byteBuffer(context.channel.allocator.buffer(bytes: body)))), promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = Int(head.status.code)
        case .body(let bytes):
            guard answer.count + bytes.readableBytes <= limit else {
                end(
                    .failure(
                        HTTPServerError(
                            "too-large", "the answer of \(place) is larger than \(limit) bytes; ask for less",
                            fault: .caller)))
                return context.close(promise: nil)
            }
            answer.append(contentsOf: bytes.readableBytesView)
        case .end:
            // What precedes the answer (1xx) is none.
            guard status >= 200 else { return }
            end(.success(HTTPClient.Answer(status: status, body: answer)))
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(.failure(failure("the connection ended before the answer was whole")))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(.failure(failure("the connection broke", error)))
        context.close(promise: nil)
    }

    private func failure(_ what: String, _ cause: (any Error)? = nil) -> HTTPServerError {
        HTTPServerError("no-answer", "\(place): \(what)", cause: cause, fault: .world, retriable: true)
    }

    private func end(_ result: Result<HTTPClient.Answer, any Error>) {
        promise?.completeWith(result)
        promise = nil
    }
}
