// Package model tests the life of jobs against a model of it: the real services
// run together while everything that can go wrong does, in an order that one
// seed decides, and an observer checks after every step what must always be true.
//
// All of it runs in one bubble of testing/synctest: the clock is false and moves
// only when nobody can do anything more, so a lease of half a minute costs
// nothing and no real time decides what happens. NATS is a server in the same
// bubble whose connections are pipes. Each message that an actor publishes, and
// each of its calls to its container engine, waits at a gate until the scheduler
// gives it its turn; there the actor's connection may break, before or after the
// server has the message, or the actor dies.
//
// A run prints its seed; -seed runs one again, and a failing run prints who did
// what in which order, and the lives of the jobs concerned.
package model
