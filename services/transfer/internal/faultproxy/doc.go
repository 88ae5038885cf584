// Package faultproxy is an HTTP proxy in front of a Girder through which
// requests go wrong, for tests of what speaks to Girder over a network.
//
// A [Proxy] passes requests on and answers back, byte by byte as it wants: it
// breaks connections, stands still, refuses, lies about lengths, changes bytes,
// loses answers and delivers requests twice. What happens to a request follows
// from the seed, the request's [Route], and how many of that route came before
// it. Each [Kind] of fault is counted when it did happen.
//
// Some of what a fault leaves in Girder is nobody's to clear away: the id of an
// upload whose first answer is lost, a file that was asked for once and made
// twice. The proxy keeps account of exactly those, so that a test can demand
// that nothing else is left.
//
// [Proxy.Cut] is what the death of the client's process is to the network, and
// [Proxy.Interrupt] lets it happen at a request. Bodies are held in memory, so
// they should be small.
package faultproxy
