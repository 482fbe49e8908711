"""Importers of the published sets: conversion of the authors' files to data set repositories."""
